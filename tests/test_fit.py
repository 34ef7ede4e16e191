"""The steps of a training run: learning rate, optimiser, average, the choice of the best, and what spoils nothing."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.courses import CORE, Course, batch_of, spoilt
from unetctl.errors import ResourceError, UsageError
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.spec import UNetSpec
from unetctl.runtime.events import Event, StageProgress
from unetctl.training.checkpoint import load_checkpoint
from unetctl.training.fit import TrainBatch
from unetctl.training.losses import SegmentationLoss


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
@pytest.mark.parametrize("how", ["NaN pixels", "infinite pixels", "gradient"])
def test_a_step_without_a_finite_loss_or_gradient_changes_no_weight(tmp_path, grad_clip, how):
    def loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = SegmentationLoss("bce")(logits, targets, weights)
        # the square root of 0: nothing is added, and its slope is infinite
        return value + torch.sqrt((logits * 0).sum()) if how == "gradient" and course.fit.state.step == 4 else value

    weights: list[dict[str, torch.Tensor]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress):
            weights.append({k: v.clone() for k, v in course.fit.network.named_parameters()})

    batches = batch_of if how == "gradient" else spoilt(4, math.nan if how == "NaN pixels" else math.inf)
    course = Course(tmp_path, loss=loss, batch_of=batches, listen=listen, grad_clip=grad_clip)
    assert course.go()
    assert math.isfinite(course.losses[5]) == (how == "gradient")
    assert all(torch.equal(v, weights[3][k]) for k, v in weights[4].items())
    assert not all(torch.equal(v, weights[4][k]) for k, v in weights[5].items())
    assert all(bool(torch.isfinite(v).all()) for v in course.tensors.values())
    finite = [course.losses[i] for i in (4, 5, 6) if math.isfinite(course.losses[i])]
    assert course.fit.state.history[1]["loss"] == pytest.approx(sum(finite) / len(finite))


def test_a_training_that_has_diverged_says_so(tmp_path):
    course = Course(tmp_path, num_epochs=20, steps_per_epoch=6, batch_of=lambda step: spoilt(step)(step))
    with pytest.raises(UsageError, match=r"diverged: none of the last 24 steps .*--lr"):
        course.go()
    assert len(course.epochs) == 3
    assert all(epoch.loss is not None and math.isnan(epoch.loss) for epoch in course.epochs)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("you tried: can't allocate memory")])
def test_a_batch_too_large_for_the_memory_is_told_from_a_bug(tmp_path, error):
    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        raise error

    with pytest.raises(ResourceError, match="--batch"):
        Course(tmp_path, loss=loss).go()
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        Course(tmp_path, loss=loss).go()


@pytest.mark.parametrize(
    ("scores", "lowest", "best"),
    [
        ([3, 1, 2, 1, 0], True, [1, 2, 5]),
        ([1, 3, 3, 2, 4], False, [1, 2, 5]),
        ([math.nan, 1, math.nan, 0, 2], False, [2, 5]),
        ([math.nan] * 5, True, []),
    ],
)
def test_the_best_weights_are_kept_and_no_number_is_no_best(tmp_path, scores, lowest, best):
    values = iter(scores)
    course = Course(tmp_path, num_epochs=5, select_lowest=lowest, validate=lambda n: {"score": next(values), "x": 1.0})
    assert course.go()
    assert [e.epoch for e in course.epochs if e.is_best] == best
    assert [figures["score"] for figures, _ in course.kept] == [scores[i - 1] for i in best]
    assert course.fit.state.best_epoch == (best[-1] if best else 0)
    assert [h["epoch"] for h in course.fit.state.history] == [1, 2, 3, 4, 5]


def test_validation_comes_every_so_many_epochs_and_at_the_end(tmp_path):
    course = Course(tmp_path, num_epochs=5, val_every=2)
    assert course.go()
    assert [e.epoch for e in course.epochs if e.metrics] == [2, 4, 5]
    assert ["score" in entry for entry in course.fit.state.history] == [False, True, False, True, True]


def test_the_learning_rate_rises_and_falls_as_told(tmp_path):
    common: dict[str, Any] = {"num_epochs": 10, "steps_per_epoch": 1, "lr": 0.5, "warmup_steps": 4}
    runs = {s: Course(tmp_path / s, schedule=s, **common) for s in ("cosine", "constant")}
    runs["plateau"] = Course(tmp_path / "p", **common | {"num_epochs": 25, "schedule": "plateau"}, validate=flat)
    lrs = {}
    for name, course in runs.items():
        assert course.go()
        lrs[name] = [course.lrs[i] for i in sorted(course.lrs)]
        assert lrs[name][:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert lrs["constant"][4:] == [0.5] * 6
    shares = [(0.01 + 0.99 * (1 + math.cos(math.pi * i / 6)) / 2) for i in range(6)]
    assert lrs["cosine"][4:] == pytest.approx([0.5 * share for share in shares])
    # the first validation is the best one; ten without a better one after the warm-up end with the 14th epoch
    assert lrs["plateau"][4:] == [0.5] * 10 + [0.25] * 10 + [0.125]


def flat(network: Network) -> Mapping[str, float]:
    return {"score": 1.0}


def test_it_ends_when_nothing_gets_better_for_long_and_goes_on_if_more_patience_is_asked_for(tmp_path):
    scores = [1.0, 2.0, 1.5, 1.9, math.nan, 1.0, 3.0, 1.0, 1.0, 1.0]

    def validate(network: Network) -> Mapping[str, float]:
        return {"score": scores[len(course.fit.state.history)]}

    common: dict[str, Any] = {"num_epochs": 10, "steps_per_epoch": 1, "validate": validate}
    course = Course(tmp_path, patience=3, **common)
    assert course.go()
    assert course.fit.has_stalled
    assert (course.fit.state.step, course.fit.state.best_epoch) == (5, 2)
    course = Course(tmp_path, patience=3, **common)
    assert course.go()  # the same command again has nothing to do
    assert course.asked == []
    course = Course(tmp_path, patience=5, **common)
    assert course.go()
    assert (course.fit.state.step, course.fit.state.best_epoch) == (10, 7)
    whole = Course(
        tmp_path / "whole", num_epochs=10, steps_per_epoch=1, validate=lambda network: {"score": 1.0}, patience=0
    )
    assert whole.go()
    assert whole.fit.state.step == 10


def test_plateau_counts_anew_after_each_fall_and_each_best(tmp_path):
    """With a running average and a warm-up, as everybody uses them; also over a stop."""
    scores = [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]

    def validate(network: Network) -> Mapping[str, float]:
        return {"score": float(scores[len(course.fit.state.history)])}

    given: dict[str, Any] = {
        "num_epochs": 12, "steps_per_epoch": 1, "schedule": "plateau", "plateau_patience": 3, "warmup_steps": 2, "lr": 1.0,
        "ema": 0.99, "validate": validate,
    }  # fmt: skip
    course = Course(tmp_path, **given)
    assert not course.go(7)
    lrs = dict(course.lrs)
    course = Course(tmp_path, **given)
    assert course.go()
    lrs |= course.lrs
    # after epochs 3, 4, 5 and 7, 8, 9 and 10, 11, 12; the second is in the warm-up, the sixth is a best one
    assert [lrs[i] for i in range(12)] == pytest.approx([0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


def test_the_last_the_best_and_every_so_many_checkpoints_are_kept(tmp_path):
    scores = [1.0, 3.0, 2.0, 2.0, 2.0]

    def validate(network: Network) -> Mapping[str, float]:
        return {"score": scores[len(course.fit.state.history)]}

    course = Course(tmp_path, num_epochs=5, keep_every=2, validate=validate)
    assert course.go()
    folder = tmp_path / "checkpoints"
    steps = {path.name: load_checkpoint(path)["state"]["step"] for path in folder.iterdir()}
    assert steps == {"last.pt": 15, "best.pt": 6, "epoch-0002.pt": 6, "epoch-0004.pt": 12}
    whole = course.tensors
    # any of them can be gone on from
    (folder / "best.pt").replace(folder / "last.pt")
    course = Course(tmp_path, num_epochs=5, keep_every=2, validate=validate)
    assert course.go()
    assert course.asked == list(range(6, 15))
    assert all(torch.equal(v, whole[k]) for k, v in course.tensors.items())


def test_the_validated_weights_are_the_running_average(tmp_path):
    networks: list[dict[str, torch.Tensor]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress):
            networks.append({k: v.clone() for k, v in course.fit.network.state_dict().items() if v.is_floating_point()})

    course = Course(tmp_path, listen=listen, ema=0.3, validate=lambda n: {"score": 1.0})
    assert course.go()
    average = networks[0]
    for step, network in enumerate(networks[1:], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {k: decay * v + (1 - decay) * network[k] for k, v in average.items()}
        if step == 2:  # the end of the first epoch: that is what was kept
            for name, value in average.items():
                torch.testing.assert_close(course.kept[0][1][name], value)
    for name, value in course.fit.average.module.state_dict().items():
        if name in average:
            torch.testing.assert_close(value, average[name])
    plain = Course(tmp_path / "plain", ema=0.0)
    assert plain.go()
    assert all(torch.equal(v, plain.fit.network.state_dict()[k]) for k, v in plain.kept[-1][1].items())


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_the_optimiser(tmp_path, optimiser):
    spec = UNetSpec(1, 1, (2, 4))
    course = Course(tmp_path, spec=spec, optimiser=optimiser, schedule="constant", warmup_steps=0, weight_decay=0.1)
    assert course.go()
    network = build_network(spec, 1)
    velocity = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    square = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    for step in range(9):
        batch = batch_of(step)
        network.zero_grad()
        SegmentationLoss("bce")(network(batch.pixels), batch.targets, batch.weights).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        with torch.no_grad():
            for name, p in network.named_parameters():
                assert p.grad is not None
                if optimiser == "sgd":
                    velocity[name] = 0.99 * velocity[name] + p.grad + 0.1 * p
                    p.sub_(0.01 * velocity[name])
                else:  # biases and norms do not decay
                    grad = p.grad + (0.1 * p if optimiser == "adam" and p.ndim > 1 else 0)
                    p.mul_(1 - 0.01 * 0.1 * (p.ndim > 1 and optimiser == "adamw"))
                    velocity[name] = 0.9 * velocity[name] + 0.1 * grad
                    square[name] = 0.999 * square[name] + 0.001 * grad**2
                    root = (square[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                    p.sub_(0.01 * velocity[name] / (1 - 0.9 ** (step + 1)) / root)
    for name, p in network.named_parameters():
        torch.testing.assert_close(course.fit.network.state_dict()[name], p.detach(), atol=1e-5, rtol=1e-4)


def test_the_largest_seed_works_and_every_seed_is_another_course(tmp_path):
    losses = set()
    for seed in (0, 1, 2**63 - 1):
        course = Course(tmp_path / str(seed), seed=seed, num_epochs=1)
        assert course.go()
        losses.add(course.losses[3])
    assert len(losses) == 3


@pytest.mark.parametrize("border", ["mirror", "native"])
def test_a_same_size_network_learns_from_its_core(tmp_path, border):
    spec = UNetSpec(1, 1, (2, 4), convolution="same", border=border)
    halo = spec.halo[0] if border == "mirror" else 0

    def batch(step: int) -> TrainBatch:
        good = batch_of(step)
        pixels = torch.nn.functional.pad(good.pixels[..., :CORE, :CORE], [halo] * 4, mode="circular")
        return TrainBatch(pixels, good.targets, good.weights)

    course = Course(tmp_path, spec=spec, batch_of=batch)
    assert course.go()
    assert all(math.isfinite(loss) for loss in course.losses.values())
