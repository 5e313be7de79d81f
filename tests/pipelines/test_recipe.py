"""Recipes: what is accepted, and how a wrong one is told."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import InputError
from cube.months import Month
from pipelines.recipe import Recipe, read_recipe

GOOD = """
name = "Reserve"
[area]
bbox = [107.5, 33.6, 107.6, 33.7]
[months]
first = "2022-01"
last = "2022-12"
[source]
kind = "stac"
catalogue = "https://example.org/stac"
[outputs]
folder = "out"
"""


def _read(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path, overrides)


def test_paths_are_seen_from_the_recipe(tmp_path: Path) -> None:
    recipe = _read(tmp_path, GOOD)
    assert recipe.outputs.folder == tmp_path / "out"
    assert recipe.months.first == Month(2022, 1)
    assert recipe.bands[0] == "B02"


def test_band_names_of_any_provider_become_canonical(tmp_path: Path) -> None:
    recipe = _read(tmp_path, GOOD, 'bands=["blue", "B8a", "B5", "swir16"]')
    assert recipe.bands == ("B02", "B8A", "B05", "B11")


def test_overrides_are_toml_or_plain_words(tmp_path: Path) -> None:
    recipe = _read(tmp_path, GOOD, "name=Other name", "training.epochs=3", "grid.crs=EPSG:32648")
    assert (recipe.name, recipe.training.epochs) == ("Other name", 3)
    assert recipe.grid.crs == "EPSG:32648"


def test_the_template_is_a_recipe(tmp_path: Path) -> None:
    template = Path(__file__).parents[2] / "pipelines" / "recipes" / "template.toml"
    recipe = _read(tmp_path, template.read_text())
    assert recipe.reference is None
    # every key it shows, also behind a comment sign, exists
    shown = template.read_text()
    for section, field in Recipe.model_fields.items():
        if f"[{section}]" in shown and hasattr(field.annotation, "model_fields"):
            part = shown.split(f"[{section}]", 1)[1].split("\n[", 1)[0].split("\n# [", 1)[0]
            keys = {
                line.lstrip("# ").split("=")[0].strip()
                for line in part.splitlines()
                if "=" in line.split("#  ")[0]
            }
            assert keys <= set(field.annotation.model_fields), section


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("months.frist=2022-01",), "months.frist: unknown key; did you mean 'first'"),
        (("months.first=2022-13",), "months.first: month 2022-13 does not exist"),
        (("months.first=January",), "months.first: month 'January' does not exist"),
        (("months.last=2021-12",), "months: months end at 2021-12, before they start at 2022-01"),
        (("training.epochs=ten",), "training.epochs: found 'ten'; expected .*integer"),
        (("training.epochs=0",), "training.epochs: found 0; expected .*greater than"),
        (("area.bbox=[1, 2, 3]",), r"area.bbox"),
        (("area.file=none.geojson",), "area.file: file .*none.geojson' does not exist"),
        (("source.kind=stak",), "source: kind = 'stak' is not known; expected 'stac' or 'stack'"),
        (("source.reader=gdal",), "source.reader: found 'gdal'; expected .*'odc' or 'stackstac'"),
        (('bands=["B02", "B99"]',), "bands.1: 'B99' is no Sentinel-2 L2A band; known are"),
        (('bands=["B02", "blue"]',), "bands repeat"),
        (("composite.tile=100",), "composite.tile 100 is no multiple of chunk 256"),
        (("composite.zarr_format=2",), "zarr_format 2 has no shards"),
        (("cluster.kind=scheduler",), "address goes with kind = 'scheduler'"),
        (("reference.file=nowhere.gpkg",), "reference.file: file .*nowhere.gpkg' does not exist"),
        (("outputs=5",), "outputs: found 5"),
        (("composite.tile='512'",), "composite.tile: found '512'; expected .*integer"),
        (("map.clip='no'",), "map.clip: found 'no'; expected .*boolean"),
        (("sampling.block_size=inf",), "sampling.block_size: found inf; expected .*finite"),
        (("sampling.seed=true",), "sampling.seed: found True; expected .*integer"),
        (("source.mask='SCL'",), "unknown key with this source; it belongs to kind = 'stack'"),
        (("area.bbox=5",), "area.bbox: found 5; expected a list"),
        (("reference.file='.'",), "reference.file: file .* does not exist"),
        (("nonsense",), "--set 'nonsense' is not understood"),
        (("name.x=1",), "'name' is a value, not a table"),
    ],
)
def test_a_wrong_key_is_told_in_one_line(
    tmp_path: Path, change: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        _read(tmp_path, GOOD, *change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"months: missing; must be given"):
        _read(
            tmp_path, GOOD.replace("[months]", "[grid]").replace("first", "#").replace("last", "#")
        )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name = ", "is not TOML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "name, months, source, outputs: missing; must be given"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_recipe(path)
    with pytest.raises(InputError, match="`canopycube init` writes one"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path)


@given(text=st.text(max_size=60))
def test_no_override_breaks_the_reader(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("recipe")
    for override in (f"name={text}", text):
        with contextlib.suppress(InputError):
            _read(folder, GOOD, override)
