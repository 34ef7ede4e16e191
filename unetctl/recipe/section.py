"""What all sections of a recipe share: how strict they are, and the types of their settings."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

AS_LIST = Field(strict=False)  # a TOML list serves as a tuple; what is in it stays strict
Name = Annotated[str, Field(min_length=1)]
Width = Annotated[int, Field(ge=1, le=8192)]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
Names = Annotated[tuple[Name, ...], AS_LIST]
Range = Annotated[tuple[float, float], AS_LIST]
PositiveRange = Annotated[tuple[Positive, Positive], AS_LIST]


class Section(BaseModel):
    """One table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
