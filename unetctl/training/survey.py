"""What the headers of all pictures and labels say, before any pixel is decoded: sizes that fit, or one list of those that do not.

survey(pairs, should_stop, accept) -> Survey(num_planes, left_out)
Survey.refuse_left_out(num_pairs); Survey.describe() -> lines to print
opened(path), info_of(source, pair), plane_shape(info), check_size(pair, image, labels)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unetctl.errors import InputError, Stopped
from unetctl.geometry.box import Ints
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.open import open_source
from unetctl.training.pairs import Pair

#: So many are shown where they are left out; an error lists them all.
_SHOWN = 10
#: Pairs between two questions whether to stop.
_ASK_EVERY = 50


@dataclass(frozen=True)
class LeftOut:
    """A pair that cannot be trained on.

    Attributes:
        pair: the pair.
        error: what is wrong with it.
        sizes: of picture and labels in words if they differ, else empty.
    """

    pair: Pair
    error: InputError
    sizes: tuple[str, str] | tuple[()] = ()


@dataclass(frozen=True)
class Survey:
    """What headers say.

    Attributes:
        num_planes: of every pair whose picture and labels fit.
        left_out: the others.
    """

    num_planes: Mapping[Pair, int]
    left_out: tuple[LeftOut, ...]

    def count_planes(self, pair: Pair) -> int:
        """Planes of a pair that fits."""
        return self.num_planes[pair]

    def refuse_left_out(self, *, can_skip: bool = True) -> None:
        """Says what does not fit, all of it at once.

        Args:
            can_skip: False if to train without these was wished already, and nothing is left.

        Raises:
            InputError: if anything was left out; one that is alone speaks for itself.
        """
        if not self.left_out:
            return
        if len(self.left_out) == 1:
            raise self.left_out[0].error
        num_sizes = sum(bool(one.sizes) for one in self.left_out)
        num_others = len(self.left_out) - num_sizes
        told = [f"{num_sizes} have pictures and labels of unequal size"] if num_sizes else []
        told += [f"{num_others} cannot be used"] if num_others else []
        rows = "\n  ".join(self.table())
        raise InputError(
            f"of {len(self.num_planes) + len(self.left_out)} pairs {' and '.join(told)}",
            "sound files, pictures and labels of equal sizes, pictures of one kind",
            f"mend them{', leave them out with --exclude, or train without them with --on-error skip' * can_skip}:\n  {rows}",
        )

    def table(self) -> list[str]:
        """One line a pair that was left out, in columns: name, size of the picture, of the labels; or what is wrong."""
        sized = [(one.pair.name, *one.sizes) for one in self.left_out if len(one.sizes) == 2]
        rows = []
        if sized:
            sized.insert(0, ("pair", "picture", "labels"))
            widths = [max(len(row[i]) for row in sized) for i in range(3)]
            rows = ["  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip() for row in sized]
        return rows + [f"{one.pair.name}: {one.error.seen}" for one in self.left_out if not one.sizes]

    def describe(self) -> list[str]:
        """Lines for the user about what was left out; none if nothing was."""
        if not self.left_out:
            return []
        rows = self.table()
        more = [f"  ... and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
        return [f"left out, {len(self.left_out)} that do not fit:", *(f"  {row}" for row in rows[:_SHOWN]), *more]


def survey(
    pairs: Sequence[Pair],
    should_stop: Callable[[], bool] = lambda: False,
    accept: Callable[[ImageInfo, Pair], None] = lambda info, pair: None,
) -> Survey:
    """Opens the headers of pictures and labels.

    Args:
        pairs: to be looked at.
        should_stop: asked now and then.
        accept: raises `InputError` of a picture that cannot be learnt from, by its header.

    Raises:
        Stopped: if asked to.
    """
    num_planes: dict[Pair, int] = {}
    left_out = []
    for i, pair in enumerate(pairs):
        if i % _ASK_EVERY == _ASK_EVERY - 1 and should_stop():
            raise Stopped("stopped while the pictures were looked at", "", "run the same command again")
        try:
            num_planes[pair] = count_planes(pair, accept)
        except UnequalSizesError as error:
            left_out.append(LeftOut(pair, error, error.sizes))
        except InputError as error:
            left_out.append(LeftOut(pair, error))
    return Survey(num_planes, tuple(left_out))


def count_planes(pair: Pair, accept: Callable[[ImageInfo, Pair], None] = lambda info, pair: None) -> int:
    """Planes of a pair's picture; 1 for a page.

    Raises:
        InputError: if picture and labels differ in size, one of them cannot be read, or `accept` raises it.
    """
    with opened(pair.image) as image, opened(pair.labels) as labels:
        check_size(pair, image, labels)
        info = info_of(image, pair)
        accept(info, pair)
        return int(np.prod(plane_shape(info), dtype=int))


class UnequalSizesError(InputError):
    """Picture and labels differ in size; `sizes` has both in words."""

    sizes: tuple[str, str]


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A source that is closed at the end.

    Raises:
        InputError: see `open_source`.
    """
    source = open_source(str(path))
    try:
        yield source
    finally:
        source.close()


def info_of(source: Source, pair: Pair) -> ImageInfo:
    """The picture of a file that a pair means.

    Raises:
        InputError: if the file holds fewer.
    """
    images = source.info.images
    if pair.i_image >= len(images):
        raise InputError(f"{source.info.uri} holds {len(images)} pictures", f"at least {pair.i_image + 1}")
    return images[pair.i_image]


def check_size(pair: Pair, image: Source, labels: Source) -> None:
    """Passes pictures and labels of equal size.

    Raises:
        UnequalSizesError: for any others.
    """
    infos = [info_of(source, pair) for source in (image, labels)]
    # An axis of one plane more or less is no difference: (1, y, x) labels fit a (y, x) picture.
    sizes = [([n for n in plane_shape(i) if n != 1], i.size_of("y"), i.size_of("x")) for i in infos]
    if sizes[0] != sizes[1]:
        told = [f"{'x'.join(map(str, i.shape))} ({i.axes})" for i in infos]
        error = UnequalSizesError(
            f"{pair.image} has {told[0]} and its labels {pair.labels} have {told[1]}",
            "equal sizes",
            "mend or leave out the pair with --exclude, or train without it with --on-error skip",
        )
        error.sizes = told[0], told[1]
        raise error


def plane_shape(info: ImageInfo) -> Ints:
    """Sizes of all axes that number planes: neither channels, y nor x."""
    return tuple(n for a, n in zip(info.axes, info.shape, strict=True) if a not in "cyx")
