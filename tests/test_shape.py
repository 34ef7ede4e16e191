"""One picture as a shape: by alpha, by a mask beside it, by its background; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unetctl.errors import InputError
from unetctl.jobs.sample import labels_path, make_sample
from unetctl.jobs.sample_logo import emblem
from unetctl.training.shape import HALF, Shape, cut_out, find_shape


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    path = tmp_path / "logo.png"
    Image.fromarray(emblem((96, 96), 0)).save(path)
    return path


def flat(logo: Path, colour: tuple[int, int, int], to: str, **options: Any) -> Path:
    """The logo on a ground of one colour."""
    with Image.open(logo) as image:
        ground = Image.new("RGB", image.size, colour)
        ground.paste(image, (0, 0), image)
    path = logo.with_name(to)
    ground.save(path, **options)
    return path


def placed(shape: Shape, size: int = 96) -> npt.NDArray[np.bool_]:
    """The shape's mask in the middle of a canvas: shapes cut out with one pixel more or less can be compared."""
    canvas = np.zeros((size, size), bool)
    y, x = ((size - n) // 2 for n in shape.size)
    canvas[y : y + shape.size[0], x : x + shape.size[1]] = shape.alpha >= HALF
    return canvas


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_by_its_alpha(logo: Path):
    shape = cut_out(*find_shape(logo))
    alpha = emblem((96, 96), 0)[..., 3] / 255
    assert shape.how == "its alpha channel"
    assert (shape.alpha >= HALF).sum() == (alpha >= HALF).sum()
    assert shape.colour.shape == (3, *shape.size)
    assert "by its alpha channel" in str(shape)


@pytest.mark.parametrize(("colour", "told"), [((255, 255, 255), "#ffffff"), ((20, 120, 60), "#14783c")])
def test_by_its_background_colour(logo: Path, colour: tuple[int, int, int], told: str):
    by_alpha = cut_out(logo)
    shape = cut_out(flat(logo, colour, "flat.png"))
    assert shape.how == f"its background colour {told}"
    assert iou(placed(shape), placed(by_alpha)) > 0.95
    # No halo of the old ground: colours at the rim are the shape's own.
    rim = (shape.alpha > 0) & (shape.alpha < 0.9)
    near = np.abs(shape.colour[:, rim] - np.asarray(colour)[:, None] / 255).sum(0)
    assert np.median(near) > 0.2


def test_jpeg_has_a_background_too(logo: Path):
    shape = cut_out(flat(logo, (240, 240, 235), "flat.jpg", quality=75))
    assert iou(placed(shape), placed(cut_out(logo))) > 0.9


def test_what_is_enclosed_stays(tmp_path: Path):
    picture = np.full((60, 60, 3), 255, np.uint8)
    picture[10:50, 10:50] = (200, 0, 0)
    picture[25:35, 25:35] = 255  # as the hole of a letter O
    Image.fromarray(picture).save(tmp_path / "o.png")
    shape = cut_out(tmp_path / "o.png")
    assert (shape.alpha[20, 20], (shape.alpha >= HALF).sum()) == (1, 40 * 40)


def test_by_a_mask_beside_it_or_a_pair_in_folders(logo: Path, tmp_path: Path):
    picture = flat(logo, (255, 255, 255), "mark.png")
    mask = np.zeros((96, 96), np.uint8)
    mask[20:70, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mark-mask.png")
    assert find_shape(picture) == (picture, tmp_path / "mark-mask.png")
    shape = cut_out(*find_shape(picture))
    assert ((shape.alpha >= HALF).sum(), shape.how) == (50 * 30, "the mask mark-mask.png")
    folder = tmp_path / "pair"
    for kind, source in (("images", picture), ("masks", tmp_path / "mark-mask.png")):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "mark.png").write_bytes(source.read_bytes())
    assert find_shape(folder) == (folder / "images/mark.png", folder / "masks/mark.png")
    assert (cut_out(*find_shape(folder)).alpha >= HALF).sum() == 50 * 30
    Image.fromarray(mask // 255).save(tmp_path / "mark-mask.png")  # class numbers
    assert (cut_out(*find_shape(picture)).alpha >= HALF).sum() == 50 * 30


def test_a_folder_with_one_picture(logo: Path, tmp_path: Path):
    assert find_shape(tmp_path) == (logo, None)
    flat(logo, (0, 0, 0), "another.png")
    with pytest.raises(InputError, match="no two that belong together"):
        find_shape(tmp_path)


def test_what_shows_no_shape_is_refused(tmp_path: Path, logo: Path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(InputError, match=r"only \d+% of its border is of one colour; .*alpha channel, or a mask"):
        cut_out(tmp_path / "noise.png")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "blank.png")
    with pytest.raises(InputError, match="shows no shape"):
        cut_out(tmp_path / "blank.png")
    Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    with pytest.raises(InputError, match="shows no shape"):
        cut_out(tmp_path / "clear.png")
    Image.fromarray(np.full((50, 96), 255, np.uint8)).save(tmp_path / "logo-mask.png")
    with pytest.raises(InputError, match="has 96x50 pixels and its picture 96x96"):
        cut_out(*find_shape(logo))
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(tmp_path / "logo-mask.png")
    with pytest.raises(InputError, match=r"all of .* is the shape"):
        cut_out(*find_shape(logo))
    with pytest.raises(InputError, match="does not exist"):
        find_shape(tmp_path / "nothing.png")


def test_the_sample_is_a_picture_with_alpha_and_its_labels(tmp_path: Path):
    path = make_sample("logo", tmp_path, (80, 72), 2, labels=True)
    assert path == tmp_path / "logo-sample.png"
    with Image.open(path) as image, Image.open(labels_path(path)) as mask:
        assert (image.mode, image.size) == ("RGBA", (72, 80))
        assert np.array_equal(np.asarray(image)[..., 3], np.asarray(mask))
    assert not np.array_equal(emblem((64, 64), 1), emblem((64, 64), 2))
    assert np.array_equal(emblem((64, 64), 1), emblem((64, 64), 1))
