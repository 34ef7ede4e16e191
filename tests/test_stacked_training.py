"""Networks in a row learn what separates a page from a clean one, block by block."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tests.courses import Course, assert_same
from tests.training_data import pages, run, save
from unetctl.networks.build import build_network
from unetctl.networks.network import Answer
from unetctl.networks.spec import StackedSpec, UNetSpec
from unetctl.networks.weights import load_weights, read_header
from unetctl.recipe.load import recipe_from_dict
from unetctl.training.fit import TrainBatch
from unetctl.training.losses import DegradationLoss, SegmentationLoss, loss_of, soft_dice, weighted_bce

Pixels = npt.NDArray[Any]
SPEC = StackedSpec.of(1, 1, 2, widths=(4, 8), up="bicubic", convolution="same", norm="batch")
CORE = 16
RECIPE = """
[task]
name = "clean"
[input]
stack = false
[normalise]
method = "mean_std"
[network]
kind = "stacked"
blocks = 2
channels = [4, 8]
convolution = "same"
up = "bicubic"
norm = "batch"
[output]
classes = ["ink"]
[labels]
values = [255, 0]
[train]
crop = [32, 32]
batch = 2
epochs = 2
steps_per_epoch = 60
precision = "fp32"
lr = 0.01
ema = 0.9
[loss]
kind = "degradation"
dice = 0.5
"""


def page(i: int) -> tuple[Pixels, Pixels]:
    """A page of two tones under uneven light (y, x), and its ground truth: 0 is ink, 255 is paper."""
    rng = np.random.default_rng(i)
    ink = np.kron(rng.random((10, 12)) < 0.3, np.ones((4, 4), bool))
    light = np.linspace(0, 60, ink.shape[1])
    grey = np.where(ink, 60, 180) + light * (-1) ** i + rng.normal(0, 10, ink.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), np.where(ink, 0, 255).astype(np.uint8)


def batch_of(step: int, halo: int = SPEC.halo[0]) -> TrainBatch:
    """Crops of such pages, ink about -1 and paper about 1."""
    rng = np.random.default_rng(step)
    pictures, inks = [], []
    for _ in range(2):
        grey, truth = page(int(rng.integers(100)))
        wide = np.pad((grey / 60.0) - 2, halo + CORE, mode="reflect")
        y, x = rng.integers(0, 8, 2)
        pictures.append(wide[y : y + CORE + 2 * halo, x : x + CORE + 2 * halo])
        inks.append(np.pad(truth == 0, CORE, mode="reflect")[y : y + CORE, x : x + CORE])
    pixels = torch.from_numpy(np.stack(pictures)[:, None].astype(np.float32))
    return TrainBatch(pixels, torch.from_numpy(np.stack(inks)[:, None].astype(np.uint8)), torch.ones(2, 1, CORE, CORE))


def answers_of(network: Any, batch: TrainBatch) -> tuple[Answer, ...]:
    answers: tuple[Answer, ...] = network.answers(*_framed(batch))
    return answers


def _framed(batch: TrainBatch) -> tuple[Tensor, Any]:
    from unetctl.training.stepper import frame_of

    return batch.pixels, frame_of(batch.pixels, batch.targets)


# -- the loss


def test_the_loss_is_the_mean_over_blocks_of_difference_and_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    answers = [
        Answer(torch.randn(2, 1, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator))
        for _ in range(3)
    ]
    target = (torch.rand(2, 1, 4, 4, generator=generator) < 0.5).to(torch.uint8)
    weights = torch.rand(2, 1, 4, 4, generator=generator) * 5
    weights[0, 0, 0] = 0
    loss = DegradationLoss(image_weight=0.7, ink_level=-2.0, paper_level=0.5, dice=0.3)
    wanted = 0.0
    for answer in answers:
        assert answer.image is not None
        clean = torch.where(target > 0, -2.0, 0.5).expand(2, 3, 4, 4)
        squares = ((answer.image - clean) ** 2)[(weights > 0).expand(2, 3, 4, 4)]
        mask = weighted_bce(answer.logits, target, weights) + 0.3 * soft_dice(answer.logits.sigmoid(), target, weights)
        wanted += float(mask + 0.7 * squares.mean()) / 3
    assert float(loss.of_answers(answers, target, weights)) == pytest.approx(wanted, rel=1e-5)
    # with logits alone, as validation calls it: that of the mask
    alone = SegmentationLoss("bce", dice=0.3)(answers[0].logits, target, weights)
    assert torch.equal(loss(answers[0].logits, target, weights), alone)


def test_pixels_of_weight_0_have_no_say():
    target, weights = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [2.0, 0.0]]]])
    image = torch.full((1, 1, 2, 2), 3.0)
    image[..., 1] = math.inf
    loss = DegradationLoss(paper_level=1.0).of_answers([Answer(torch.zeros(1, 1, 2, 2), image)], target, weights)
    assert float(loss) == pytest.approx(4.0 + math.log(2))


def test_an_answer_without_an_image_is_refused():
    with pytest.raises(ValueError, match="without an image"):
        DegradationLoss().of_answers([Answer(torch.zeros(1, 1, 2, 2))], torch.zeros(1, 1, 2, 2))


def test_recipes_name_their_loss():
    base: dict[str, Any] = {"task": {"name": "t"}, "train": {"crop": [16, 16]}}
    network = {"kind": "stacked", "channels": [2, 2]}
    plain = loss_of(recipe_from_dict({**base, "network": network}, "a test"))
    assert (type(plain), plain.kind) == (SegmentationLoss, "bce")
    default = loss_of(recipe_from_dict({**base, "network": network, "loss": {"kind": "degradation"}}, "a test"))
    assert isinstance(default, DegradationLoss)
    assert (default.image_weight, default.ink_level, default.paper_level) == (1.0, -1.0, 1.0)
    given = {"kind": "degradation", "image_weight": 0.0, "ink_level": 0.0, "paper_level": 2.0, "dice": 1.0}
    chosen = loss_of(recipe_from_dict({**base, "network": network, "loss": given}, "a test"))
    assert isinstance(chosen, DegradationLoss)
    assert (chosen.image_weight, chosen.ink_level, chosen.paper_level, chosen.dice) == (0.0, 0.0, 2.0, 1.0)


# -- every block is taught


def test_each_block_learns_from_its_own_answer_and_from_those_after_it():
    network, batch, loss = build_network(SPEC, 0), batch_of(0), DegradationLoss()
    for k in range(2):
        network.zero_grad(set_to_none=True)
        answer = answers_of(network, batch)[k]
        loss.of_answers([answer], batch.targets, batch.weights).backward()
        taught = {
            int(name.split(".")[1]) for name, p in network.named_parameters() if p.grad is not None and p.grad.any()
        }
        # untrained blocks hand the image on as it is, so the way back to the first one is open from the start
        assert taught == set(range(k + 1))


def test_the_first_block_learns_while_the_second_is_frozen():
    network, loss = build_network(SPEC, 0), DegradationLoss()
    frozen = [p for name, p in network.named_parameters() if name.startswith("blocks.1.")]
    for p in frozen:
        p.requires_grad_(False)
    kept = [p.clone() for p in frozen]
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.02)
    first = []
    for step in range(25):
        batch = batch_of(step % 4)
        optimiser.zero_grad()
        answers = answers_of(network, batch)
        loss.of_answers(answers, batch.targets, batch.weights).backward()
        first.append(float(loss.of_answers(answers[:1], batch.targets, batch.weights).detach()))
        optimiser.step()
    assert np.mean(first[-4:]) < 0.6 * np.mean(first[:4])
    assert all(torch.equal(p, before) for p, before in zip(frozen, kept, strict=True))


# -- the loop


def test_a_few_steps_lower_the_loss_and_a_resumed_run_is_the_same(tmp_path):
    given: dict[str, Any] = {
        "spec": SPEC, "loss": DegradationLoss(dice=0.5), "batch_of": batch_of, "num_epochs": 3, "steps_per_epoch": 12,
    }  # fmt: skip
    whole, halves = Course(tmp_path / "a", **given), Course(tmp_path / "b", **given)
    assert whole.go()
    losses = [whole.losses[i] for i in sorted(whole.losses)]
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:6])
    assert not halves.go(stop_after=17)
    again = Course(tmp_path / "b", **given)
    assert again.go()
    again.losses = {**halves.losses, **again.losses}
    assert_same(whole, again)


def test_a_row_learns_from_plain_cross_entropy_too(tmp_path):
    course = Course(tmp_path, spec=SPEC, batch_of=batch_of, num_epochs=2, steps_per_epoch=10)
    assert course.go()
    losses = [course.losses[i] for i in sorted(course.losses)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_single_u_net_has_no_image_to_compare(tmp_path):
    course = Course(tmp_path, spec=UNetSpec(1, 1, (2, 4)), loss=DegradationLoss())
    with pytest.raises(ValueError, match="without an image"):
        course.go()


# -- from a folder to a clean page


def test_a_recipe_trains_resumes_and_cleans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.toml").write_text(RECIPE)
    pages(tmp_path / "data", 5, page)
    trained = run("train", "--data", "data", "--task", "./clean.toml", "-o", "run")
    assert (trained.exit_code, trained.stdout) == (0, "run\n"), trained.stderr
    header = read_header(tmp_path / "run" / "weights.safetensors")
    assert header.recipe["loss"]["kind"] == "degradation"
    assert header.figures["validation"]["iou"] > 0.5
    again = run("train", "--data", "data", "--task", "./clean.toml", "-o", "run")
    assert again.exit_code == 0, again.stderr
    grey, truth = page(200)
    save(tmp_path / "new.tif", grey)
    import tifffile

    outputs = {}
    for keep in ("mask", "image"):
        told = run(
            "predict", "new.tif", "--task", "run", "--keep", keep, "-o", f"{keep}.ome.tif", "--precision", "fp32"
        )
        assert told.exit_code == 0, told.stderr
        outputs[keep] = tifffile.imread(f"{keep}.ome.tif")
    assert ((outputs["mask"] == 255) == (truth == 0)).mean() > 0.9
    # The paper's light has been evened out, and the ink is still dark.
    assert outputs["image"][truth > 0].std() < 0.75 * grey[truth > 0].std()
    assert outputs["image"][truth == 0].mean() < outputs["image"][truth > 0].mean() - 60
    network = load_weights(tmp_path / "run" / "weights.safetensors")[0]
    assert network.spec == recipe_from_dict(header.recipe, "the run").network_spec
