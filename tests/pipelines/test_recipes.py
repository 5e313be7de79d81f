"""The recipes that come along: they are read with either source, and lie where they say."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyproj
import pytest
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.forest import FOREST_CLASSES, ForestSpec, forest_points
from cube.reference import read_reference
from model.features import REFERENCE_FEATURES
from pipelines.__main__ import RECIPES
from pipelines.draw_samples import check_reference, reference_options
from pipelines.plan import area_of
from pipelines.planned import cube_spec
from pipelines.recipe import Recipe, read_recipe
from pipelines.train_model import train_config

FOLDER = Path(__file__).parents[2] / "pipelines" / "recipes"
CHANGQING = ("changqing", "changqing-best")
KINDS = ("stac", "earthengine")
CORNERS = ((107.57481, 33.62953), (107.67266, 33.78604))
"""The workflow's area: south-west and north-east, longitude and latitude."""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that reads a shipped recipe with labels beside it."""
    points = forest_points(ForestSpec())
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lon", "lat", "class"])
        for longitude, latitude, number in zip(
            points.longitude, points.latitude, points.class_number, strict=True
        ):
            writer.writerow([longitude, latitude, FOREST_CLASSES[number - 1].name])

    def read_one(name: str, *overrides: str) -> Recipe:
        path = tmp_path / f"{name}.toml"
        path.write_bytes((FOLDER / path.name).read_bytes())
        return read_recipe(path, overrides)

    return read_one


def _geobox(recipe: Recipe) -> GeoBox:
    area = area_of(recipe)
    assert area is not None
    return cube_spec(recipe, area).geobox


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHANGQING)
def test_one_key_chooses_the_source(read: Callable[..., Recipe], name: str, kind: str) -> None:
    recipe = read(name, f"source.kind={kind}")
    assert recipe.source.kind == kind
    assert (str(recipe.months.first), str(recipe.months.last)) == ("2022-01", "2022-12")
    named = read(name, f"source.kind={kind}", "source.project=my-project")
    assert named.model_dump(exclude={"source"}) == recipe.model_dump(exclude={"source"})


@pytest.mark.parametrize("name", CHANGQING)
def test_the_grid_is_1024_by_1792_pixels_round_the_workflows_area(
    read: Callable[..., Recipe], name: str
) -> None:
    geobox = _geobox(read(name))
    assert geobox.shape == (1792, 1024)
    assert geobox.crs.epsg == 32648
    assert geobox.resolution.xy == (10, -10)
    left, bottom, right, top = geobox.boundingbox
    assert left % 60 == top % 60 == 0
    (west, south), (east, north) = CORNERS
    there = pyproj.Transformer.from_crs(4326, 32648, always_xy=True)
    inner = there.transform_bounds(west, south, east, north)
    assert left <= inner[0]
    assert bottom <= inner[1]
    assert right >= inner[2]
    assert top >= inner[3]
    # widened evenly, to a few pixels
    assert (left + right) / 2 == pytest.approx((inner[0] + inner[2]) / 2, abs=60)
    assert (bottom + top) / 2 == pytest.approx((inner[1] + inner[3]) / 2, abs=60)


def test_the_reference_run_is_the_workflows(read: Callable[..., Recipe]) -> None:
    recipe = read("changqing")
    assert recipe.source.kind == "stac"
    assert recipe.source.max_cloud_cover == 20
    assert set(recipe.bands) == set(REFERENCE_FEATURES.required_bands)
    assert len(recipe.bands) == 14
    config = train_config(recipe.training, recipe.bands)
    assert config.features == REFERENCE_FEATURES
    assert (config.layers, config.hidden, config.epochs, config.batch_size) == (2, 128, 100, 32)


def test_the_best_run_has_our_defaults_and_the_same_classes(read: Callable[..., Recipe]) -> None:
    reference, best = read("changqing"), read("changqing-best")
    given = best.model_fields_set
    assert given == {"name", "area", "grid", "months", "source", "reference", "outputs"}
    assert best.source.model_fields_set == {"kind", "catalogue"}
    assert best.area == reference.area
    assert best.reference == reference.reference
    assert best.outputs.folder != reference.outputs.folder


@pytest.mark.parametrize("name", CHANGQING)
def test_five_of_the_seven_classes_of_a_label_file_are_kept(
    read: Callable[..., Recipe], name: str
) -> None:
    recipe = read(name)
    assert recipe.reference is not None
    geobox = _geobox(recipe)
    check_reference(recipe, geobox)
    found = read_reference(reference_options(recipe.reference, recipe.sampling), geobox)
    expected = {"deci_broad", "ever_coni", "larch_CN", "larch_JP", "shrubland"}
    assert set(found.counts) == expected == set(recipe.reference.colours)


@pytest.mark.parametrize("name", CHANGQING)
def test_without_labels_the_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes((FOLDER / f"{name}.toml").read_bytes())
    with pytest.raises(InputError, match=r"reference\.file: file '.*labels\.csv' does not exist"):
        read_recipe(path)


@pytest.mark.parametrize("name", RECIPES)
def test_init_writes_any_of_them(command: Callable[..., Any], tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.toml"
    assert command("init", path, "--from", name)[0] == 0
    assert path.read_bytes() == (FOLDER / f"{name}.toml").read_bytes()


def test_init_knows_every_recipe_but_the_demos() -> None:
    assert {f"{name}.toml" for name in RECIPES} == {
        path.name for path in FOLDER.iterdir() if path.name != "demo.toml"
    }


def test_init_says_which_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from pipelines.__main__ import main

    with pytest.raises(SystemExit):
        main(["init", str(tmp_path / "mine.toml"), "--from", "changchun"])
    assert "choose from 'template', 'changqing', 'changqing-best'" in capsys.readouterr().err


def test_init_names_the_file_after_what_it_starts_from(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("init")[0] == command("init", "--from", "changqing-best")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "changqing-best.toml",
        "recipe.toml",
    ]
