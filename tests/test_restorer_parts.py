"""What a restorer need not learn: how pixels differ from their neighbours, and how surroundings continue into a hole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.test_restorer import taught
from unetctl.networks.build import build_network
from unetctl.networks.grow import can_fill, filling
from unetctl.networks.restorer import Restorer
from unetctl.networks.spec import RestorerSpec, UNetSpec
from unetctl.networks.surroundings import continued, unveiled


def test_what_lies_over_a_picture_shows_in_its_differences():
    """Nothing under what is solid, and under what is translucent a constant step less: that is what they are for."""
    picture = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    veiled = picture.clone()
    veiled[..., 10:20, 10:20] = 0.4
    veiled[..., 25:35, 25:35] = 0.5 + (picture[..., 25:35, 25:35] - 0.5) * 0.25
    network = build_network(RestorerSpec(1, (2, 2), differences=True))
    assert isinstance(network, Restorer)
    assert network.first is not None
    before, after = (network.first.differences(x)[0] for x in (picture, veiled))
    assert before.shape == (3, 38, 38)
    assert torch.equal(after[:, 10:18, 10:18], torch.zeros(3, 8, 8))
    step = (before - after)[:, 25:33, 25:33] * before[:, 25:33, 25:33].sign()
    assert step.median().item() == pytest.approx(0.5 * np.log(4), abs=0.1)
    edge = torch.zeros(1, 1, 9, 9)
    edge[..., 4:, :] = 1
    signed = network.first.differences(edge)[0]
    assert signed[0, 2, 3].item() == pytest.approx(0.5 * np.log(256))  # to the next row, just above the edge
    assert not signed[1].any()
    assert signed[2, 3, 3].item() == pytest.approx(-0.5 * np.log1p(255 / 4))  # to the mean of the neighbours


@pytest.mark.parametrize("scales", [1, 3, 6])
def test_surroundings_are_continued_into_holes(scales):
    generator = torch.Generator().manual_seed(scales)
    x, known = torch.rand(2, 3, 30, 40, generator=generator), torch.ones(2, 1, 30, 40)
    known[..., 5:25, 8:30] = 0
    found = continued(x, known, scales)
    assert torch.equal(torch.where(known > 0, found, 0), torch.where(known > 0, x, 0))  # what is known stays
    hidden = torch.where(known > 0, x, torch.rand(x.shape, generator=generator))
    reach = 2 * (2**scales - 1)
    near = torch.nn.functional.max_pool2d(known, 2 * reach + 1, 1, reach) > 0  # what is hidden does not show there
    again = continued(hidden, known, scales)
    torch.testing.assert_close(torch.where(near, again, 0), torch.where(near, found, 0), rtol=0, atol=1e-6)
    assert torch.equal(torch.where(near, 0, again), torch.where(near, 0, hidden))  # too far: as it is
    flat = torch.full_like(x, 0.3)
    torch.testing.assert_close(continued(flat, known, scales), flat)
    lowest, highest = (x.flatten(2).min(2).values, x.flatten(2).max(2).values)
    assert (found >= lowest[..., None, None] - 1e-6).all()
    assert (found <= highest[..., None, None] + 1e-6).all()


def test_what_is_taken_from_the_picture_is_given_by_its_surroundings():
    """Gain -1 and no offset: an opaque overlay on one colour vanishes wholly."""
    network = build_network(RestorerSpec(3, (2, 2), fill_scales=4))
    assert isinstance(network, Restorer)
    picture = torch.full((1, 3, 48, 48), 0.6)
    broken = picture.clone()
    broken[..., 20:28, 14:30] = torch.tensor([1.0, 0.0, 0.2])[:, None, None]
    with torch.no_grad():
        for head, weight in ((network.mask_head, 1), (network.picture_head, 0)):
            head.weight.fill_(weight)
            assert head.bias is not None
            head.bias.zero_()
        assert network.picture_head.bias is not None
        network.picture_head.bias.copy_(torch.tensor([-1.0, 0.0, 0.0, 0.0]))
        where = (broken != picture).any(1, keepdim=True)
        network.mask_decoder.register_forward_hook(lambda *_: where.float() * 100 - 50)  # it has found the damage
        answer = network.final(broken)
    assert answer.image is not None
    torch.testing.assert_close(answer.image, picture, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opacity", [0.3, 0.6, 0.85])
def test_what_shines_through_is_brought_back(opacity):
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(1, 3, 96, 96, generator=generator)
    picture = 0.5 + 2.5 * (functional.avg_pool2d(functional.pad(fine, (4,) * 4, mode="reflect"), 9, 1) - 0.5)
    damage = torch.zeros(1, 1, 96, 96)
    damage[..., 30:70, 25:61] = 1
    colour = torch.tensor([0.9, 0.1, 0.4])[:, None, None]
    broken = torch.where(damage > 0, (1 - opacity) * picture + opacity * colour, picture)
    found = unveiled(broken, damage, 6)
    assert found.aminmax()[0] >= 0
    assert found.aminmax()[1] <= 1
    inside = (damage > 0).expand_as(picture)
    error, before, filled = (
        (one - picture)[inside].square().mean().sqrt() for one in (found, broken, continued(broken, 1 - damage, 6))
    )
    assert error < 0.5 * before
    assert error < 0.75 * filled
    for doubt in (0.01, 0.1):  # as masks of a network are: nowhere quite sure
        unsure = damage * (1 - 2 * doubt) + doubt
        assert (unveiled(broken, unsure, 6) - picture)[inside].square().mean().sqrt() < 1.1 * error
    # an error of the mask by a pixel does little: the very edge counts for neither side
    shrunk = 1 - functional.max_pool2d(1 - damage, 3, 1, 1)
    core = (shrunk > 0).expand_as(picture)
    assert (unveiled(broken, shrunk, 6) - picture)[core].square().mean().sqrt() < 0.5 * before


def test_what_is_whole_or_hidden_is_not_unveiled():
    picture = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unveiled(picture, torch.zeros(1, 1, 40, 50), 4), picture, rtol=0, atol=1e-6)
    damage = torch.zeros(1, 1, 40, 50)
    damage[..., 10:30, 12:34] = 1
    hidden = torch.where(damage > 0, torch.tensor(0.7), picture)
    inside = unveiled(hidden, damage, 5)[..., 14:26, 16:30]
    assert (inside - picture.mean((2, 3), keepdim=True)).abs().max() < 0.25  # about the mean of what lies around
    other = torch.where(damage > 0, torch.tensor(0.1), picture)
    torch.testing.assert_close(unveiled(other, damage, 5)[..., 14:26, 16:30], inside, rtol=0, atol=1e-4)


def test_weights_without_filling_begin_one_that_fills():
    old = taught(RestorerSpec(3, (2, 3, 4)))
    spec = replace(old.spec, fill_scales=3)
    assert can_fill(old.spec, spec)
    new = filling(old, spec)
    x = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(new(x), old(x))
        after, before = new.final(x).prediction, old.final(x).prediction
    assert after is not None
    assert before is not None
    assert not torch.equal(after, before)
    share = filling(old, replace(spec, unveil=True))
    assert isinstance(share, Restorer)
    with torch.no_grad():
        assert torch.equal(share(x), old(x))
    assert not share.picture_head.weight[-1].any()
    assert torch.equal(
        filling(share, spec).state_dict()["picture_head.weight"], new.state_dict()["picture_head.weight"]
    )
    for other in (replace(spec, widths=(2, 3, 5)), UNetSpec(3, 1, (2, 3, 4))):
        assert not can_fill(old.spec, other)
        with pytest.raises(ValueError, match="more than fill_scales"):
            filling(old, other)
