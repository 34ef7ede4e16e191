"""What a command hands to a job: the request to stop, and sizes in words; the engine's own, for the command line."""

from unetctl.runtime.memory import format_size, parse_size
from unetctl.runtime.signals import StopRequest

__all__ = ["StopRequest", "format_size", "parse_size"]
