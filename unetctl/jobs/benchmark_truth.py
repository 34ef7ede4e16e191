"""What the labels of planes that are scored mean: as training reads them, also which of two values is the foreground."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from unetctl.errors import Stopped
from unetctl.jobs.benchmark_pages import LabelledPage, luminance, read_page, read_sides
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note
from unetctl.training.crops import Plane
from unetctl.training.load import Evidence, LoadedPair, load_selection
from unetctl.training.polarity import Polarity, settled
from unetctl.training.splits import Selection


def load_targets(
    selections: Sequence[Selection], recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]
) -> list[tuple[Plane, ...]]:
    """The chosen planes of every pair, targets as training has them; their pixels are not kept, all of them are 0.

    With `labels.foreground` "darker" most of the planes say which label value is the foreground; that is told.

    Raises:
        InputError: if a pair cannot be read, or its labels hold what the recipe does not know.
        Stopped: if asked to stop.
    """
    loaded = []
    for selection in selections:
        _go_on(should_stop)
        pair = load_selection(selection, recipe, fits_objects=False)
        for note in pair.notes:
            emit(Note(note, "warning"))
        planes = tuple(replace(plane, pixels=np.broadcast_to(np.float32(0), (1, *plane.size))) for plane in pair.planes)
        loaded.append(replace(pair, planes=planes))
    pairs, polarity = settled(loaded)
    _tell(polarity, emit)
    return [pair.planes for pair in pairs]


def is_ink_high(pages: Sequence[LabelledPage], recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]) -> bool:
    """True if the greater of the two values in the ground truth of pages is ink, as the recipe's [labels] say.

    With `labels.foreground` "darker" it is the one where most of the pages are darker, and that is told; else
    `labels.values` say it; else ink is what is above 0.

    Raises:
        InputError: if a page or its truth cannot be read, or they do not fit on each other.
        Stopped: if asked to stop.
    """
    labels = recipe.labels
    if labels.foreground != "darker":
        mapping = labels.class_of_value
        return not mapping or max(mapping, key=lambda value: mapping[value]) == max(mapping)
    evidence = []
    for page in pages:
        _go_on(should_stop)
        grey, sides = luminance(read_page(page)), read_sides(page)
        has_both = bool(sides.is_high.any() and not sides.is_high.all())
        darkness = float(grey[sides.is_high].mean() - grey[~sides.is_high].mean()) if has_both else float("nan")
        evidence.append(Evidence(page.name, sides.low, sides.high, darkness))
    _, polarity = settled([LoadedPair((), (0.0, 255.0), (), tuple(evidence))])
    _tell(polarity, emit)
    return polarity is not None and polarity.ink > polarity.paper


def _tell(polarity: Polarity | None, emit: Listener) -> None:
    for text, kind in polarity.describe() if polarity else []:
        emit(Note(text, kind))


def _go_on(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped("stopped while the labels were read", "", "run the same command again")
