"""Recipes: what is accepted, and how a wrong one is told."""

import contextlib
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cube.cog import Patience
from cube.composite import METHODS
from cube.errors import InputError
from cube.gapfill import Filling, GapFill
from cube.outlier import OutlierScreen
from cube.periods import Period
from cube.stac import PROVIDERS, Provider
from cube.stac.pixels import READERS
from cube.stac.providers import ACCESS_KINDS
from model.config import Preset, TrainConfig
from model.errors import ConfigError
from pipelines.classifier_files import _years_of
from pipelines.recipe import SOURCES, Recipe, TrainingSection, read_any_recipe, read_recipe
from pipelines.recipe_cube import CompositeSection, ExportSection, GapsSection, StacSection
from pipelines.train_model import check_training

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
    assert recipe.months.first == Period.of_month(2022, 1)
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
        kinds = [
            kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)
        ]
        if f"[{section}]" in shown and kinds:
            part = shown.split(f"[{section}]", 1)[1].split("\n[", 1)[0].split("\n# [", 1)[0]
            keys = {
                line.lstrip("# ").split("=")[0].strip()
                for line in part.splitlines()
                if "=" in line.split("#  ")[0]
            }
            assert keys <= {key for kind in kinds for key in kind.model_fields}, section
            if section in ("source", "mask", "composite", "gaps"):
                assert keys == set(kinds[0].model_fields), section


@pytest.mark.parametrize("kind", SOURCES)
def test_the_template_shows_every_kind_of_source(tmp_path: Path, kind: str) -> None:
    template = Path(__file__).parents[2] / "pipelines" / "recipes" / "template.toml"
    parts = re.split(r"\n(?:# )?\[source\]", template.read_text())[1:]
    part = next(part for part in parts if f'kind = "{kind}"' in part).split("\n\n")[0]
    shown = tomllib.loads(
        "\n".join(line.removeprefix("#").strip() for line in part.splitlines()[1:])
    )
    assert set(shown) - {"source"} <= set(SOURCES[kind].model_fields)
    if kind == "earthengine":
        assert set(shown["source"]["export"]) == set(ExportSection.model_fields)


def _is_model(kind: object) -> bool:
    return hasattr(kind, "model_fields")


def test_the_values_a_recipe_knows_are_those_of_the_cube() -> None:
    # written twice, for the cube's own take a second to import
    assert _values(CompositeSection, "method") == METHODS
    assert _values(GapsSection, "method") == get_args(Filling)
    assert _values(StacSection, "reader") == READERS
    assert set(_values(StacSection, "access")) == {"auto", *ACCESS_KINDS}
    fresh = StacSection.model_validate({"kind": "stac", "catalogue": "https://example.org"})
    assert (fresh.attempts, fresh.timeout) == (Patience().attempts, Patience().timeout)
    assert (CompositeSection().outlier_threshold, GapsSection().longest_gap) == (
        OutlierScreen().absolute,
        GapFill().longest_gap,
    )
    assert GapsSection().smoothness == GapFill().smoothness


def _values(section: type[BaseModel], key: str) -> tuple[str, ...]:
    return get_args(section.model_fields[key].annotation)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_provider_has_a_short_name(tmp_path: Path, provider: Provider) -> None:
    recipe = _read(tmp_path, GOOD, f"source.catalogue={provider.name}")
    assert recipe.source.catalogue == provider.address


def test_a_file_goes_before_a_short_name(tmp_path: Path) -> None:
    (tmp_path / "cdse").write_text("{}")
    recipe = _read(tmp_path, GOOD, "source.catalogue=cdse")
    assert recipe.source.catalogue == str(tmp_path / "cdse")


def test_a_cloud_model_needs_a_catalogue(tmp_path: Path) -> None:
    stack = (
        GOOD.replace('"stac"', '"stack"')
        .replace("catalogue", "files")
        .replace('"https://example.org/stac"', '["https://example.org/a.nc"]')
    )
    _read(tmp_path, stack)
    with pytest.raises(InputError, match=r"mask.model goes with source.kind = 'stac'"):
        _read(tmp_path, stack, "mask.model=omnicloudmask")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("months.frist=2022-01",), "months.frist: unknown key; did you mean 'first'"),
        (("months.first=2022-13",), "months.first: month 2022-13 does not exist"),
        (("months.first=January",), "months.first: month 'January' does not exist"),
        (("months.last=2021-12",), "months: months end at 2021-12, before they start at 2022-01"),
        (
            ("months.step=weekly",),
            "months.step: found 'weekly'; expected 'month', 'half-month', .*",
        ),
        (("months.step=0",), "months.step: found 0; expected .* whole number of days 1..366"),
        (("months.step=16.0",), "months.step: found 16.0; expected"),
        (("months.step=true",), "months.step: found True; expected"),
        (("months.step=season",), "months: months begin at 2022-01, within a season"),
        (("training.epochs=ten",), "training.epochs: found 'ten'; expected a whole number$"),
        (
            ("training.model=randomforest",),
            "training.model: found 'randomforest'; expected 'network', 'auto', 'lda', .* or 'mlp'; "
            "did you mean 'random forest'.$",
        ),
        (("training.splits=['yaer']",), "training.splits.0: found 'yaer'; .*did you mean 'year'"),
        (
            ("training.features=['NDVI', 'NDVII']",),
            "training.features: feature 'NDVII' does not exist; known are B01, .*NDVI",
        ),
        (("training.features=[]",), "training.features: no feature was asked for"),
        (("training.epochs=0",), "training.epochs: found 0; expected .*greater than"),
        (("area.bbox=[1, 2, 3]",), r"area.bbox"),
        (("area.file=none.geojson",), "area.file: file .*none.geojson' does not exist"),
        (
            ("source.kind=stak",),
            "source: kind = 'stak' is not known; expected one of 'stac', 'earthengine', 'stack'",
        ),
        (("source.reader=gdal",), "source.reader: found 'gdal'; expected .*'odc' or 'stackstac'"),
        (("source.access=google",), "source.access: found 'google'; expected 'auto', 'none', .*"),
        (("source.catalogue=earthsearch",), "catalogue 'earthsearch' is unknown; .*earth-search"),
        (("source.attempts=0",), "source.attempts: found 0; expected .*greater than or equal"),
        (("source.timeout=0",), "source.timeout: found 0; expected .*greater than 0"),
        (("source.lost_scenes=-1",), "source.lost_scenes: found -1; expected"),
        (
            ("source.product_metadata=1",),
            "source.product_metadata: found 1; expected true or false",
        ),
        (("mask.opening=-5",), "mask.opening: found -5; expected .*greater than or equal to 0"),
        (("mask.snow=1",), "mask.snow: found 1; expected true or false"),
        (("mask.modell=s2",), "mask.modell: unknown key; did you mean 'model'"),
        (("composite.method=mode",), "composite.method: found 'mode'; expected 'median', 'mean',"),
        (("composite.outlier_threshold=0",), "composite.outlier_threshold: found 0; expected"),
        (("composite.buffer=1.5",), "composite.buffer: found 1.5; expected a whole number"),
        (("gaps.method=spline",), "gaps.method: found 'spline'; expected 'linear', 'harmonic'"),
        (("gaps.longest_gap=0",), "gaps.longest_gap: found 0; expected"),
        (("gaps.smothness=1",), "gaps.smothness: unknown key; did you mean 'smoothness'"),
        (('bands=["B02", "B99"]',), "bands.1: 'B99' is no Sentinel-2 L2A band; known are"),
        (('bands=["B02", "blue"]',), "bands repeat"),
        (("composite.tile=100",), "composite.tile 100 is no multiple of chunk 256"),
        (("composite.zarr_format=2",), "zarr_format 2 has no shards"),
        (("cluster.kind=scheduler",), "address goes with kind = 'scheduler'"),
        (("reference.file=nowhere.gpkg",), "reference.file: file .*nowhere.gpkg' does not exist"),
        (("outputs=5",), "outputs: found 5"),
        (("composite.tile='512'",), "composite.tile: found '512'; expected a whole number"),
        (("map.clip='no'",), "map.clip: found 'no'; expected true or false"),
        (("sampling.block_size=inf",), "sampling.block_size: found inf; expected .*finite"),
        (("sampling.seed=true",), "sampling.seed: found True; expected a whole number"),
        (("source.mask='SCL'",), "it belongs to kind = 'earthengine' or 'stack'"),
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
        (b"", "name, outputs, months, source: missing; must be given"),
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


def test_every_setting_of_a_network_is_a_key_of_training() -> None:
    keys = set(TrainingSection.model_fields)
    assert {field.name for field in fields(TrainConfig)} <= keys
    for preset in get_args(Preset):
        settings = TrainConfig.preset(preset).to_dict()
        given = {name: value for name, value in settings.items() if value is not None}
        assert TrainingSection.model_validate(given).model_dump(include=set(given)) == (
            given | {"features": tuple(given["features"])}
        )


def test_lists_in_lists_beyond_reason_are_told(tmp_path: Path) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    with pytest.raises(InputError, match="lists in lists beyond reason"):
        _read(tmp_path, f"{GOOD}\nx = {deep}")
    with pytest.raises(InputError, match="lists in lists beyond reason"):
        _read(tmp_path, GOOD, f"name={deep}")


def test_a_recipe_of_samples_that_has_a_map_is_told(tmp_path: Path) -> None:
    (tmp_path / "samples.zarr").mkdir()
    path = tmp_path / "recipe.toml"
    text = 'name = "x"\n[reference]\nsamples = "samples.zarr"\n[outputs]\nfolder = "out"\n'
    path.write_text(text + "[map]\nmin_months = 2\n")
    with pytest.raises(
        InputError, match=r"map: unknown key; it goes with a recipe of scenes, which"
    ):
        read_any_recipe(path)
    path.write_text(text + "[trainings]\n")
    with pytest.raises(InputError, match=r"unknown key; did you mean 'training'\?"):
        read_any_recipe(path)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('model = "mlp"\nbaselines = ["lda"]', "model is 'mlp', which is not scored"),
        ('splits = ["knndm", "knndm"]', "training.splits names one twice"),
        ('splits = ["region"]', "name the column of regions in reference.region_column"),
        ("search = { ranges = { hiden = [8, 16] } }", "'hiden' is no setting that can be searched"),
        ("search = { ranges = { hidden = [16, 8] } }", "ends must rise"),
    ],
)
def test_training_that_cannot_be_is_told_before_a_build(
    tmp_path: Path, line: str, text: str
) -> None:
    (tmp_path / "labels.csv").write_text("lon,lat,class\n")
    recipe = _read(tmp_path, f'{GOOD}[reference]\nfile = "labels.csv"\n[training]\n{line}\n')
    with pytest.raises((InputError, ConfigError)) as caught:
        check_training(recipe)
    assert text in str(caught.value)


def test_the_years_of_a_model_are_those_of_its_samples() -> None:
    stored = xr.Dataset(
        {"year": ("sample", np.array([2016, 2019, 2020]))},
        coords={"period": ("time", np.array(["2018-09", "2018-10", "2019-02"]))},
    )
    start, end = _years_of(stored)
    assert (str(start)[:10], str(end)[:10]) == ("2016-09-01", "2021-02-28")
    assert str(_years_of(stored.drop_vars("year"))[1])[:19] == "2019-02-28T23:59:59"
