"""What networks need of their input, worked out without torch: one file a kind.

A new kind is a frozen dataclass that keeps `NetworkSpec`'s promises, an entry in `SPECS`, and a module of the same kind
in `unetctl.networks.build`.
"""

from unetctl.networks.spec.base import Bounds, Interval, NetworkSpec
from unetctl.networks.spec.restorer import RestorerSpec
from unetctl.networks.spec.stacked import BlockExtent, StackedSpec
from unetctl.networks.spec.unet import AxisTrace, LevelTrace, UNetSpec, upsampled_from

__all__ = [
    "SPECS",
    "AxisTrace",
    "BlockExtent",
    "Bounds",
    "Interval",
    "LevelTrace",
    "NetworkSpec",
    "RestorerSpec",
    "StackedSpec",
    "UNetSpec",
    "upsampled_from",
]

#: Kind to spec.
SPECS: dict[str, type[NetworkSpec]] = {"unet": UNetSpec, "stacked": StackedSpec, "restorer": RestorerSpec}
