"""A value of a recipe in, the same value checked out: the kinds of value that sections are made of."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
)

from cube.bands import canonical_band
from cube.periods import Period, parse_month
from cube.place import RemoteFolder, as_place

STEPS = ("month", "half-month", "season", "acquisition")
"""Periods that `months.step` knows by name."""


def _month(value: object) -> Period:
    return value if isinstance(value, Period) else parse_month(str(value))


def _step(value: object) -> object:
    is_days = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 366
    if not is_days and value not in STEPS:
        raise ValueError(
            f"found {value!r:.40}; expected {', '.join(map(repr, STEPS))} or a whole number of "
            "days 1..366"
        )
    return value


def _block_size(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (is_number and math.isfinite(float(value)) and float(value) > 0):  # type: ignore[arg-type]
        raise ValueError(
            f"found {value!r:.40}; expected a finite number of metres above 0, or 'auto'"
        )
    return value


def _rooted(path: Path, info: ValidationInfo) -> Path:
    """Return a path of the recipe as seen from the recipe's own folder."""
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path.expanduser()).absolute()


def _place(value: object, info: ValidationInfo) -> object:
    """Return a path of the recipe as seen from its folder, or an address as a remote folder."""
    found = as_place(value) if isinstance(value, str) else value
    return _rooted(found, info) if isinstance(found, Path) else found


def _existing(path: Path, info: ValidationInfo) -> Path:
    rooted = _rooted(path, info)
    if not rooted.is_file():
        raise ValueError(f"file {str(rooted)!r} does not exist")
    return rooted


def _rooted_text(name: str, info: ValidationInfo) -> str:
    """Return a file, template or catalogue seen from the recipe's folder; addresses as they are."""
    if "://" in name:
        return name
    rooted = _rooted(Path(name), info)
    if "{date" not in name and not rooted.exists():
        raise ValueError(f"file {str(rooted)!r} does not exist")
    return str(rooted)


def _catalogue(name: str, info: ValidationInfo) -> str:
    """Return a catalogue's address or path; a provider's short name becomes its address."""
    is_word = not set(name) & set("/\\.:")
    if is_word and not _rooted(Path(name), info).exists():
        # heavy to import, and short names are few
        from cube.stac.providers import catalogue_address

        return catalogue_address(name)
    return _rooted_text(name, info)


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
MonthText = Annotated[Period, BeforeValidator(_month)]
StepText = Annotated[
    Literal["month", "half-month", "season", "acquisition"] | int, BeforeValidator(_step)
]
BlockSize = Annotated[float | Literal["auto"], BeforeValidator(_block_size)]
BandName = Annotated[str, AfterValidator(canonical_band)]
AnyPath = Annotated[Path, AfterValidator(_rooted)]
AnyPlace = Annotated[InstanceOf[Path] | InstanceOf[RemoteFolder], BeforeValidator(_place)]
RootedText = Annotated[str, AfterValidator(_rooted_text)]
CatalogueText = Annotated[str, AfterValidator(_catalogue)]
ExistingPath = Annotated[Path, AfterValidator(_existing)]


class Section(BaseModel):
    """A table of the recipe: unknown keys and loose types are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )
