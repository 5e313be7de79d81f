"""A TOML file in, a validated `Recipe` out: the one description of a run."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cube.errors import InputError
from pipelines.recipe_cluster import ClusterSection
from pipelines.recipe_cube import (
    AreaSection,
    CompositeSection,
    EarthEngineSection,
    ExportSection,
    GapsSection,
    GridSection,
    MaskSection,
    MonthsSection,
    StackSection,
    StacSection,
)
from pipelines.recipe_model import (
    LearningRecipe,
    MapSection,
    ReferenceSection,
    SamplingSection,
    SeriesRecipe,
    TrainingSection,
)
from pipelines.recipe_values import BandName, Section

__all__ = [
    "ClusterSection",
    "CompositeSection",
    "EarthEngineSection",
    "ExportSection",
    "LearningRecipe",
    "Recipe",
    "ReferenceSection",
    "SamplingSection",
    "SeriesRecipe",
    "StacSection",
    "StackSection",
    "TrainingSection",
    "read_any_recipe",
    "read_recipe",
]

SOURCES: dict[str, type[Section]] = {
    "stac": StacSection,
    "earthengine": EarthEngineSection,
    "stack": StackSection,
}
"""Sections of `[source]` by their kind."""

SERVER_METHODS = ("median", "mean", "medoid")
"""Values of `composite.method` that Earth Engine computes."""

DEFAULT_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


class Recipe(LearningRecipe):
    """One run from scenes to a map; a recipe without `reference` ends with the cube."""

    months: MonthsSection
    source: Annotated[StacSection | EarthEngineSection | StackSection, Field(discriminator="kind")]
    area: AreaSection | None = None
    grid: GridSection = GridSection()
    bands: Annotated[tuple[BandName, ...], Field(min_length=1)] = DEFAULT_BANDS
    mask: MaskSection = MaskSection()
    composite: CompositeSection = CompositeSection()
    gaps: GapsSection | None = None
    map: MapSection = MapSection()
    cluster: ClusterSection = ClusterSection()

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands repeat: {list(self.bands)}")
        if self.area is None and self.source.kind != "stack":
            raise ValueError("area is missing; give [area] bbox or file")
        if self.area is None and self.grid.model_fields_set:
            raise ValueError("grid goes with area; without one the cube takes the stack's own grid")
        is_exported = self.source.kind == "earthengine" and self.source.export is not None
        if self.grid.crs == "utm-each" and is_exported:
            raise ValueError(
                "grid.crs 'utm-each' does not go with source.export; take 'utm' or 'equal-area'"
            )
        if self.mask.model is not None and self.source.kind != "stac":
            raise ValueError(
                "mask.model goes with source.kind = 'stac'; others have their own mask"
            )
        if self.source.kind == "earthengine":
            self._is_for_earth_engine()
        if self.composite.tile % self.composite.chunk:
            raise ValueError(
                f"composite.tile {self.composite.tile} is no multiple of chunk {self.composite.chunk}"
            )
        if self.composite.sharded and self.composite.zarr_format == 2:
            raise ValueError("composite.zarr_format 2 has no shards; set composite.sharded = false")
        return self

    def _is_for_earth_engine(self) -> None:
        """Refuse what needs single looks here, where only composites arrive."""
        method = self.composite.method
        if method not in SERVER_METHODS:
            raise ValueError(
                f"composite.method {method!r} is not computed on Earth Engine; expected "
                f"{', '.join(SERVER_METHODS)}, or take source.kind = 'stac'"
            )
        wanted = {
            "composite.outliers": self.composite.outliers,
            "mask.buffer": self.mask.buffer,
            "mask.opening": self.mask.opening,
        }
        if given := [key for key, value in wanted.items() if value]:
            raise ValueError(
                f"{given[0]} needs the single looks, and Earth Engine gives composites; leave it "
                "out, or take source.kind = 'stac'"
            )


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read and validate a recipe; `overrides` are `key.path=value` texts (values in TOML).

    Paths in the recipe are taken from the recipe's folder. Raises `InputError`, naming the key,
    what was found and what is expected.
    """
    return _validated(Recipe, _table(path, overrides), path)


def read_any_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe | SeriesRecipe:
    """Read a recipe as `read_recipe` does, or one of samples that need no cube: without `source`."""
    table = _table(path, overrides)
    reference = table.get("reference")
    takes_samples = isinstance(reference, dict) and "samples" in reference
    if takes_samples and "source" not in table:
        return _validated(SeriesRecipe, table, path)
    return _validated(Recipe, table, path)


_AnyRecipe = TypeVar("_AnyRecipe", Recipe, SeriesRecipe)


def _validated(kind: type[_AnyRecipe], table: dict[str, Any], path: Path) -> _AnyRecipe:
    try:
        return kind.model_validate(table, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise InputError(f"recipe {str(path)!r}: {_first_error(error, kind)}") from error


def _table(path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"recipe {str(path)!r} does not exist; `canopycube init` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {str(path)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {str(path)!r} is not TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"recipe {str(path)!r} has lists in lists beyond reason") from error
    for override in overrides:
        _override(table, override)
    return table


def _override(table: dict[str, Any], text: str) -> None:
    found = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.*)", text, flags=re.DOTALL)
    if not found:
        raise InputError(
            f"--set {text!r} is not understood; expected key=value, e.g. map.min_months=3"
        )
    try:
        value = tomllib.loads(f"value = {found[2]}")["value"]
    except tomllib.TOMLDecodeError:
        value = found[2]  # plain words need no quotes on a command line
    except RecursionError as error:
        raise InputError(f"--set {text[:60]!r} has lists in lists beyond reason") from error
    *parents, key = found[1].split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {text!r}: {parent!r} is a value, not a table")
    table[key] = value


def _first_error(error: ValidationError, recipe: type[Section]) -> str:
    """Return the first finding of a kind of recipe as `key: what was found; what is expected`."""
    findings = error.errors(include_url=False)
    first = findings[0]
    kind = next((str(step) for step in first["loc"][1:2] if step in SOURCES), "stac")
    key = _key(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_suggestion(key, kind, recipe)}"
    elif first["type"] == "missing":
        absent = [_key(finding["loc"]) for finding in findings if finding["type"] == "missing"]
        findings = [finding for finding in findings if finding["type"] != "missing"] or [first]
        key, message = ", ".join(absent), "missing; must be given"
    elif first["type"] == "union_tag_invalid":
        known = ", ".join(map(repr, SOURCES))
        message = f"kind = {first['ctx']['tag']!r} is not known; expected one of {known}"
    elif first["type"] != "value_error":
        alike = [finding for finding in findings if _key(finding["loc"]) == key]
        message = f"found {first['input']!r:.80}; expected {_expected(alike)}"
    # a value that may be of several kinds has a finding for each
    others = len({_key(finding["loc"]) for finding in findings} - {key})
    more = f" (and {others} more)" if others else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table of keys and values",
}
"""What is expected of a value, by pydantic's type of finding."""


def _expected(findings: Sequence[ErrorDetails]) -> str:
    """Return what may stand where these findings are: any of what each of them expects."""
    told = [
        _KINDS.get(finding["type"], finding["msg"].removeprefix("Input should be "))
        for finding in findings
    ]
    expected = ", ".join(part.replace(" or ", ", ") for part in told[:-1])
    expected = f"{expected}, {told[-1]}" if expected else told[-1]
    names = re.findall(r"'([^']*)'", expected)
    close = difflib.get_close_matches(str(findings[0]["input"]), names, n=1)
    return f"{expected}; did you mean {close[0]!r}?" if close else expected


_OF_A_UNION = re.compile(
    r"literal\[.*\]|constrained-.*|function-.*|nullable\[.*\]|(?:int|float|bool|str)"
)
"""Steps that pydantic adds for each kind that a value may be of."""


def _key(location: tuple[int | str, ...]) -> str:
    """Return a place in the recipe as its reader sees it, without pydantic's own steps."""
    steps = [str(step) for step in location if step not in (*SOURCES, "[key]")]
    return ".".join(step for step in steps if not _OF_A_UNION.fullmatch(step))


def _suggestion(key: str, kind: str, recipe: type[Section]) -> str:
    """Return which key of the same table may have been meant, or which there are."""
    *parents, last = key.split(".")
    if not parents and last not in recipe.model_fields and last in Recipe.model_fields:
        return "; it goes with a recipe of scenes, which has [source]; this one has samples only"
    section: Any = recipe
    for step in parents:
        field = section.model_fields.get(step)
        section = SOURCES[kind] if step == "source" else field.annotation if field else None
        section = next((kind for kind in (*get_args(section), section) if _is_section(kind)), None)
        if section is None:
            return ""
    owners = [other for other, fields in SOURCES.items() if last in fields.model_fields]
    if parents == ["source"] and owners:
        return f" with this source; it belongs to kind = {' or '.join(map(repr, owners))}"
    close = difflib.get_close_matches(last, section.model_fields, n=1)
    known = ", ".join(section.model_fields)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {known}"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
