"""Plans over a catalogue: what a build will read and keep in memory, and what counts as the same."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from rangeserver import RangeServer

from cube.cog import PIECES
from cube.errors import InputError
from cube.forest import Forest
from cube.stac import pixels
from cube.store import create_cube
from pipelines import scenelock
from pipelines.build_cube import build_tile
from pipelines.memory import LookSizes, scenes_memory, strips_of
from pipelines.plan import plan_cube
from pipelines.plan_describe import describe
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.run import open_run

WriteRecipe = Callable[..., Recipe]
MAY = ("months.first=2022-05", "months.last=2022-05", "cluster.workers=1")


@pytest.fixture
def cold() -> Callable[[], None]:
    """Return a function that lets this process forget what it has read of files."""

    def forget() -> None:
        pixels.HEADERS.forget()
        PIECES.forget()

    return forget


def without_labels(recipe: Recipe, folder: Path | None = None) -> Recipe:
    changes: dict[str, object] = {"reference": None}
    if folder is not None:
        changes["outputs"] = recipe.outputs.model_copy(update={"folder": folder})
    return recipe.model_copy(update=changes)


@pytest.mark.parametrize("change", [(), ("mask.buffer=60", "composite.tile=128")])
def test_a_build_asks_for_what_plan_said(
    forest: Forest,
    forest_recipe: WriteRecipe,
    reporter: Reporter,
    cold: Callable[[], None],
    change: tuple[str, ...],
) -> None:
    with RangeServer(forest.folder) as server:
        recipe = forest_recipe(*MAY, *change, f"source.catalogue={server.url}/catalog.json")
        with open_run(without_labels(recipe), reporter) as run:
            said = run.describe()
            cold()
            server.clear()
            found = run.build()
            served = [one for one in server.requests if one.target.endswith(".tif")]
    assert found["requests"] == len(served)
    assert said["requests"] == pytest.approx(found["requests"], rel=0.1)
    assert said["bytes_to_read"] == pytest.approx(found["bytes_read"], rel=0.1)
    assert 0 < said["requests_for_headers"] < said["requests"]
    assert found["lost_scenes"] == []


def test_another_tile_or_mask_is_counted_without_a_new_search(
    forest: Forest, forest_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RangeServer(forest.folder) as server:
        catalogue = f"source.catalogue={server.url}/catalog.json"
        small = plan_cube(without_labels(forest_recipe(*MAY, catalogue)))
        fresh = plan_cube(
            without_labels(forest_recipe(*MAY, catalogue, "composite.tile=128"), tmp_path / "new")
        )

        def search(*_: object, **__: object) -> None:
            raise AssertionError("searched again")

        monkeypatch.setattr(scenelock, "find_scenes", search)
        large = plan_cube(without_labels(forest_recipe(*MAY, catalogue, "composite.tile=128")))
        again = plan_cube(without_labels(forest_recipe(*MAY, catalogue, "composite.tile=128")))
    assert large.scenes is not None
    assert small.scenes is not None
    assert [s.identity for s in large.scenes.scenes] == [s.identity for s in small.scenes.scenes]
    plans = (small, fresh, large, again)
    told = [
        sum(scene.cost["band_requests"] for scene in plan.scenes.scenes)
        for plan in plans
        if plan.scenes is not None
    ]
    assert told[0] > told[1] == told[2] == told[3]


def test_each_process_reads_the_headers_for_itself(
    forest: Forest, forest_recipe: WriteRecipe
) -> None:
    with RangeServer(forest.folder) as server:
        recipe = forest_recipe(*MAY, f"source.catalogue={server.url}/catalog.json")
        plan = plan_cube(without_labels(recipe))
    one, three = (describe(plan, workers=3, processes=count) for count in (1, 3))
    assert three["requests"] - one["requests"] == 2 * one["requests_for_headers"]
    assert three["peak_bytes"] - one["peak_bytes"] == 2 * plan.memory.process
    assert one["peak_bytes"] == 3 * plan.memory.tile + plan.memory.process


def test_what_libraries_read_is_not_counted(forest_recipe: WriteRecipe) -> None:
    said = describe(plan_cube(forest_recipe(*MAY, "source.reader=odc")), workers=1)
    assert said["requests"] is said["bytes_to_read"] is None
    local = describe(plan_cube(forest_recipe(*MAY)), workers=1)
    assert local["requests"] == local["bytes_to_read"] == 0


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        ("source.reader=odc", False),
        ("source.access=s3", False),
        ("source.attempts=2", False),
        ("source.timeout=5", False),
        ("source.lost_scenes=3", False),
        ("composite.buffer=1", False),
        ("composite.outlier_threshold=0.1", False),
        ("source.resampling=nearest", True),
        ("mask.opening=30", True),
        ("mask.shadow=true", True),
        ("mask.snow=true", True),
        ("composite.method=medoid", True),
        ("composite.outliers=true", True),
        ("gaps.method=linear", True),
        ("gaps.longest_gap=50", True),
    ],
)
def test_only_what_changes_pixels_builds_anew(
    forest_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, change: str, is_other: bool
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    plain = plan_cube(forest_recipe(*MAY))
    changed = plan_cube(forest_recipe(*MAY, change))
    assert (changed.inputs != plain.inputs) == is_other


def test_a_recipe_reaches_the_plan(forest_recipe: WriteRecipe) -> None:
    plan = plan_cube(
        forest_recipe(
            *MAY,
            "source.lost_scenes=2",
            "source.attempts=3",
            "source.timeout=7",
            "composite.method=mean",
            "composite.buffer=5",
            "composite.outliers=true",
            "composite.outlier_threshold=0.07",
            "gaps.method=whittaker",
            "gaps.smoothness=2.0",
            "mask.snow=true",
            "mask.opening=40",
        )
    )
    source = plan.source
    catalogue = source.catalogue
    assert (plan.allowed_losses, catalogue.reader, catalogue.access) == (2, "direct", "none")
    assert (catalogue.patience.attempts, catalogue.patience.timeout) == (3, 7.0)
    assert (source.method, source.buffer_bytes) == ("mean", 5_000_000)
    assert source.screen == plan.finish.screen
    assert plan.finish.screen.absolute == 0.07
    assert (plan.finish.gaps.method, plan.finish.gaps.smoothness) == ("whittaker", 2.0)
    assert (catalogue.mask.snow, catalogue.mask.shadow, catalogue.mask.opening) == (True, False, 40)
    assert plan.facts["strips"] >= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("mask.model=none-such",), "cloud model 'none-such' is unknown; known are"),
        (("mask.classes=[0, 4]",), r"mask classes \[0\] can never be clear"),
        (('bands=["B05"]', "composite.outliers=true"), "outlier screen needs one of B02"),
        (('bands=["B05"]', "composite.method=max-ndvi"), "'max-ndvi' needs B04"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_search(
    forest_recipe: WriteRecipe, change: tuple[str, ...], words: str
) -> None:
    recipe = forest_recipe(*MAY, *change)
    with pytest.raises(InputError, match=words):
        plan_cube(recipe)
    assert not (recipe.outputs.folder / "scenes.parquet").exists()


@pytest.mark.parametrize(
    "change",
    [
        ("composite.method=median",),
        ("composite.method=best", "composite.outliers=true", "gaps.method=harmonic"),
        ("mask.buffer=50", "composite.buffer=1"),
        ("grid.resolution=30",),
    ],
)
def test_a_tile_of_scenes_stays_within_the_memory_that_plan_prints(
    forest_recipe: WriteRecipe, tmp_path: Path, change: tuple[str, ...]
) -> None:
    recipe = forest_recipe(
        "months.first=2022-04", "months.last=2022-06", "composite.tile=128", *change
    )
    plan = plan_cube(without_labels(recipe))
    path = tmp_path / "cube.zarr"
    create_cube(path, plan.spec)
    (path / "ledger").mkdir()
    region = plan.spec.regions()[0]
    arguments = (path, plan.spec, plan.source, region, plan.made_from.of(region), plan.finish)
    build_tile(*arguments)  # compiles, and opens threads
    tracemalloc.start()
    try:
        build_tile(*arguments)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # files under way count whole blocks, and a tile of 120 pixels has a corner of one
    assert 0.2 * plan.memory.tile < peak < plan.peak_bytes


def test_memory_is_bounded_by_the_buffer_and_not_by_the_looks(
    forest_recipe: WriteRecipe,
) -> None:
    spec = plan_cube(forest_recipe(*MAY)).spec
    few, many = (
        LookSizes(looks=looks, buffer=10**6, margin=2, in_flight=8) for looks in (10, 1000)
    )
    masks = 6 * 10**6 // (2 * 5)  # a mask byte for each pixel of a look in the buffer
    assert strips_of(spec, few) == 1
    assert strips_of(spec, many) == 47
    rest = scenes_memory(spec, few, is_finished=False).tile
    assert scenes_memory(spec, many, is_finished=False).tile < rest + 10**6 + masks
    assert scenes_memory(spec, many, is_finished=True).tile > rest


def test_answers_of_searches_lie_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANOPYCUBE_CACHE", str(tmp_path / "mine"))
    assert scenelock.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("CANOPYCUBE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert scenelock.cache_folder() == tmp_path / "user" / "canopycube"


def test_a_plan_shows_no_secret_of_the_catalogue(
    forest: Forest, forest_recipe: WriteRecipe
) -> None:
    with RangeServer(forest.folder) as server:
        recipe = forest_recipe(*MAY, f"source.catalogue={server.url}/catalog.json?token=hidden")
        said = describe(plan_cube(recipe), workers=1)
        assert said["provider"] == f"{server.url}/catalog.json"
    assert "hidden" not in str(said)
