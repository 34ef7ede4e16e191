"""What a recipe may say about objects: how labels are made of class probabilities."""

from pydantic import Field

from unetctl.recipe.section import Section


class Objects(Section):
    """From probabilities of background, interior and border to one number for every object (`--keep labels`)."""

    diameter_px: float | None = Field(
        default=None,
        ge=4,
        le=256,
        description="training brings every picture to the scale where its median object is as large as a disc of this diameter, "
        "and predict, without --scale, every page; absent: pictures stay as they are",
    )
    seed_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability of the interior from which a pixel belongs to a seed; connected seeds are one object",
    )
    foreground_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability of interior or border from which a pixel belongs to any object",
    )
    grow_px: int = Field(
        default=8, ge=0, le=256, description="farthest that a seed grows into the foreground around it, px"
    )
    min_seed_px: int = Field(default=4, ge=1, description="smaller seeds are noise: they start no object, px")
    min_area_px: int = Field(default=16, ge=1, description="smaller objects are left out, px")
    max_hole_px: int = Field(
        default=32, ge=0, le=4096, description="holes in a plane of an object are filled up to this area, px; 0: never"
    )
    join_planes: bool = Field(
        default=True,
        description="in volumes (z, y, x) objects go on from plane to plane; false: each plane has objects of its own",
    )
