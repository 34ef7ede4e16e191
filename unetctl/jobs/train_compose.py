"""What `unetctl train` learns from when all there is is one picture: a shape, put onto backgrounds.

gather_composed(data, recipe, emit, should_stop) -> TrainData      that holds a composer
crop_set(data, recipe, crop, halo, margin) -> the crops of any data
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, Stopped
from unetctl.geometry.box import Box
from unetctl.jobs.train_data import TrainData
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note
from unetctl.sources.page_files import find_pages
from unetctl.sources.pages import open_pages
from unetctl.training.compose import TRAINING, VALIDATION, ComposedSet, Composer, composed_planes
from unetctl.training.crops import PlaneSet
from unetctl.training.pairs import Pair
from unetctl.training.scenery import resized
from unetctl.training.shape import Shape, cut_out, find_shape
from unetctl.training.splits import Selection, Split

Floats = npt.NDArray[np.float32]

#: Composites that are counted to tell how much of a picture the shape covers.
_COUNTED = 32
#: Most pictures of a folder of backgrounds, and their longer side in memory, pixels.
_MOST_PHOTOS, _LARGEST_PX = 400, 768


def gather_composed(data: Path, recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]) -> TrainData:
    """Cuts the shape out and composes the pictures to validate on.

    Raises:
        InputError: if there is no shape, or no background can be read.
        Stopped: if asked to.
    """
    composer = composer_of(data, recipe, emit, should_stop)
    train = composed_planes(composer, recipe, TRAINING, _COUNTED, should_stop)
    val = composed_planes(composer, recipe, VALIDATION, recipe.compose.num_val, should_stop)
    if should_stop():
        raise Stopped("stopped while pictures were composed", "", "run the same command again")
    split = Split(
        (_selection("composed", len(train), data),), (_selection("held out", len(val), data),), (), (), (), ()
    )
    return TrainData(split, train, val, (0.0, 255.0), (), composer)


def composer_of(data: Path, recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]) -> Composer:
    """What composes pictures of the shape in `data`; tells how it was cut out.

    Raises:
        InputError: see `find_shape`, `cut_out`; or if the folder of backgrounds holds no picture that can be read.
        Stopped: if asked to.
    """
    shape = shape_of(data, emit)
    photos: list[Floats] = []
    if recipe.compose.backgrounds:
        photos = _photos(Path(recipe.compose.backgrounds), emit, should_stop)
    return Composer(shape, recipe.compose, photos)


def shape_of(data: Path, emit: Listener) -> Shape:
    """The shape in `data`; tells how it was cut out.

    Raises:
        InputError: see `find_shape`, `cut_out`.
    """
    shape = cut_out(*find_shape(data))
    emit(Note(str(shape), "info"))
    return shape


def crop_set(
    data: TrainData, recipe: Recipe, crop: tuple[int, int], halo: tuple[int, int], margin: tuple[int, int]
) -> PlaneSet:
    """Crops of planes, or composed ones."""
    if data.composer is not None:
        return ComposedSet(data.composer, recipe, crop, halo, margin)
    return PlaneSet(data.train, crop, halo, margin, focus=recipe.train.focus)


def _selection(name: str, num: int, data: Path) -> Selection:
    return Selection(Pair(name, data, data, "page", None, "composed"), tuple(range(num)))


def _photos(folder: Path, emit: Listener, should_stop: Callable[[], bool]) -> list[Floats]:
    """Pictures to paste onto, (3, y, x) 0..1 each; those that cannot be read are told of and left out."""
    if not folder.is_dir():
        raise InputError(f"compose.backgrounds: there is no folder {folder}", "a folder of pictures")
    files = find_pages(folder, recursive=True)
    step = max(1, -(-len(files) // _MOST_PHOTOS))
    found: list[Floats] = []
    for file in files[::step]:
        if should_stop():
            raise Stopped("stopped while backgrounds were read", "", "run the same command again")
        try:
            found.append(_photo(file))
        except InputError as error:
            emit(Note(f"{file} is left out: {error.seen}", "warning"))
    if not found:
        raise InputError(f"compose.backgrounds: {folder} holds no picture that can be read", "pictures to paste onto")
    emit(Note(f"{len(found)} of {len(files)} pictures of {folder} serve as backgrounds", "info"))
    return found


def _photo(file: Path) -> Floats:
    source = open_pages(str(file))
    try:
        info = source.images[0]
        pixels = source.read(0, Box.whole(info.shape)).reshape(-1, *info.shape[-2:])
    finally:
        source.close()
    white = np.float32(np.iinfo(info.dtype.name).max)
    scaled: Floats = np.broadcast_to(np.asarray(pixels, np.float32) / white, (3, *pixels.shape[1:]))
    factor = min(1.0, _LARGEST_PX / max(scaled.shape[1:]))
    size = (max(1, round(scaled.shape[1] * factor)), max(1, round(scaled.shape[2] * factor)))
    return resized(scaled, size) if factor < 1 else np.ascontiguousarray(scaled)
