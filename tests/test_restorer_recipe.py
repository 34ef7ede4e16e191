"""What a recipe says about restoration: network, loss, labels and damage belong together."""

from dataclasses import replace
from typing import Any

import pytest

from tests.test_restorer import NETWORK
from unetctl.errors import UsageError
from unetctl.networks.spec import RestorerSpec
from unetctl.recipe import describe
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe


def recipe(**sections: dict[str, Any]) -> Recipe:
    values: dict[str, Any] = {
        "task": {"name": "mend"}, "input": {"channels": 3, "stack": False}, "normalise": {"method": "range"},
        "network": NETWORK, "loss": {"kind": "restoration"}, "labels": {"kind": "image"}, "train": {"crop": [16, 16]},
    }  # fmt: skip
    return recipe_from_dict({**values, **sections}, "a test")


def test_a_recipe_asks_for_a_restorer():
    made = recipe(output={"keep": "image", "classes": ["damage"]})
    assert made.network_spec == RestorerSpec(3, (2, 3, 4), border="mirror", down="max")
    assert "3 residual sub-blocks a level" in describe(made)[-1]
    assert "repaired where there is damage" in "".join(describe(made))
    assert recipe_from_dict(made.to_dict(), "again") == made
    two, three = (recipe(network={**NETWORK, "sub_blocks": n}) for n in (2, 3))
    assert two.fingerprint() != three.fingerprint() == recipe().fingerprint()
    seeing = recipe(network={**NETWORK, "differences": True})
    assert seeing.network_spec == RestorerSpec(3, (2, 3, 4), border="mirror", down="max", differences=True)
    assert "sees differences" in " ".join(describe(seeing))
    filled = recipe(network={**NETWORK, "fill_scales": 2})
    assert filled.network_spec == RestorerSpec(3, (2, 3, 4), border="mirror", down="max", fill_scales=2)
    unveiling = recipe(network={**NETWORK, "fill_scales": 2, "unveil": True})
    assert unveiling.network_spec == replace(filled.network_spec, unveil=True)
    assert len({r.fingerprint() for r in (seeing, filled, three)}) == 3


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"loss": {}}, r"\[loss\] kind: \"cross_entropy\" together with network.kind = \"restorer\" and labels.kind"),
        ({"labels": {}}, r"\[labels\] kind: \"binary\" together with network.kind = \"restorer\""),
        ({"network": {}}, r"\[network\] kind: \"unet\" together with loss.kind = \"restoration\""),
        ({"network": {"sub_blocks": 2}}, r"\[network\] sub_blocks: 2 with kind = \"unet\""),
        ({"network": {"fill_scales": 2}}, r"\[network\] fill_scales: 2 with kind = \"unet\""),
        ({"network": {"unveil": True}}, r"\[network\] unveil: true with kind = \"unet\""),
        ({"network": {"differences": True}}, r"\[network\] differences: true with kind = \"unet\""),
        ({"network": {**NETWORK, "differences": True, "kernel": 1}}, r"\[network\] kernel: 1 with differences = true"),
        ({"network": {**NETWORK, "convolution": "valid", "padding": "zero"}}, r"convolution: \"valid\" with kind"),
        ({"network": {**NETWORK, "convs_per_level": 3}}, "use sub_blocks"),
        ({"network": {**NETWORK, "dropout": 0.1}}, r"dropout: 0.1"),
        ({"output": {"classes": ["a", "b"]}}, "2 classes"),
        ({"normalise": {}}, "statistics of a picture change with its damage"),
        ({"train": {"crop": [16, 16], "focus": 0.5}}, "clean pictures have no foreground"),
        ({"damage": {"overlays": [4, 1]}}, r"\[damage\] overlays: \[4, 1\]; .* did you mean \[1, 4\]\?"),
        ({"damage": {"size_px": [0, 8]}}, r"size_px: \[0, 8\]"),
        ({"damage": {"alpha": [0.9, 0.3]}}, r"alpha: \[0.9, 0.3\]; .* did you mean \[0.3, 0.9\]\?"),
        ({"damage": {"shapes": ["circle"]}}, r"\[damage\] shapes"),
        ({"damage": {"colours": ["red"]}}, r"\[damage\] colours"),
        ({"damage": {"picture": [0, 64]}}, r"\[damage\] picture: \[0, 64\]"),
        ({"input": {"channels": 1}, "augment": {"hue_deg": 90}}, r"hue_deg: 90.* with input.channels = 1"),
        ({"input": {"channels": 3}, "augment": {"saturation": [2, 1]}}, r"\[augment\] saturation: \[2"),
    ],
)
def test_what_does_not_go_together_is_told(sections, told):
    with pytest.raises(UsageError, match=told):
        recipe(**sections)


def test_damage_is_for_restoration_only():
    with pytest.raises(UsageError, match=r"\[damage\]: given with loss.kind = \"cross_entropy\""):
        recipe_from_dict({"task": {"name": "em"}, "damage": {"overlays": [1, 2]}}, "a test")
    with pytest.raises(UsageError, match=r"select: \"psnr\" with loss.kind"):
        recipe_from_dict({"task": {"name": "em"}, "train": {"select": "psnr"}}, "a test")
