"""A recipe and a finished cube, or imported samples, in; labelled sequences out, stored and as arrays."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.delayed import delayed
from jaxtyping import Float64, Int64
from odc.geo.geobox import GeoBox

from cube.autocorrelation import Autocorrelation, measure_autocorrelation
from cube.cells import cell_centres
from cube.chunkreads import ChunkRead, Keep, Run, read_chunk, read_in_turn
from cube.errors import InputError
from cube.place import Place
from cube.reference import Reference, ReferenceOptions, read_reference
from cube.relabel import apply_decisions
from cube.sample import SampleOptions, draw_samples, refuse_too_few
from cube.samplestore import add_folds, open_samples, write_samples
from cube.sampletable import write_parquet
from cube.store import read_spec
from cube.tables.choose import SampleChoice, choose_samples, classes_of
from model.classunits import groups_by_class
from model.legend import Legend
from pipelines.cluster import TileWork, run_tasks
from pipelines.label_units import refuse_few_groups
from pipelines.layout import Layout
from pipelines.recipe import LearningRecipe, Recipe, ReferenceSection, SamplingSection

if TYPE_CHECKING:
    from distributed import Client

BLOCK_SIZE = 1000.0
"""Metres along the edge of blocks whose size is "auto" where nothing can be measured."""

MOST_CLASSES = 60
"""More classes than this are taken for a wrong column, or a raster of measurements."""


def reference_options(section: ReferenceSection, sampling: SamplingSection) -> ReferenceOptions:
    """Return how the recipe wants its file of ground truth read."""
    assert section.file is not None  # the caller asks only for recipes with one
    return ReferenceOptions(
        file=section.file,
        class_column=section.class_column,
        group_column=section.group_column,
        region_column=section.region_column,
        share_columns=section.share_columns,
        x_column=section.x_column,
        y_column=section.y_column,
        crs=section.crs,
        layer=section.layer,
        classes=section.classes,
        drop=frozenset(section.drop),
        patch=sampling.patch,
        erode=section.erode,
        variable=section.variable,
        class_names={int(value): name for value, name in section.names.items()},
        nodata=section.nodata,
        every=sampling.every,
    )


def sample_options(sampling: SamplingSection, *, measured: int | None = None) -> SampleOptions:
    """Return which labelled cells the recipe wants as samples.

    `measured` is the block size that "auto" stands for.
    """
    block_size = (measured or BLOCK_SIZE) if sampling.block_size == "auto" else sampling.block_size
    return SampleOptions(
        max_per_class=sampling.max_per_class,
        max_per_group=sampling.max_per_group,
        min_clear_months=sampling.min_clear_months,
        block_size=block_size,
        stratify=sampling.stratify,
        seed=sampling.seed,
    )


def sample_choice(recipe: LearningRecipe) -> SampleChoice:
    """Return what the recipe wants of the samples that it names.

    Raises `InputError` if the run would write its own samples over them.
    """
    assert recipe.reference is not None  # the caller asks only for recipes with samples
    assert recipe.reference.samples is not None
    if Layout.of(recipe.outputs).samples.resolve() == recipe.reference.samples.resolve():
        raise InputError(
            f"outputs.folder {str(recipe.outputs.folder)!r} would put the run's samples in place of "
            "those that reference.samples names; choose another outputs.folder"
        )
    return SampleChoice(
        path=recipe.reference.samples,
        bands=recipe.bands if isinstance(recipe, Recipe) else None,
        periods=recipe.months.calendar if isinstance(recipe, Recipe) else None,
        classes=recipe.reference.classes,
        drop=frozenset(recipe.reference.drop),
        options=sample_options(recipe.sampling),
    )


def check_reference(recipe: LearningRecipe, geobox: GeoBox | None) -> None:
    """Refuse labels that cannot be used on the cube's grid, colours of no class, acquisitions.

    Imported samples have places of their own and need no grid. Raises `InputError`.
    """
    assert recipe.reference is not None  # the caller asks only for recipes with one
    if isinstance(recipe, Recipe) and recipe.months.step == "acquisition":
        raise InputError(
            "months.step = 'acquisition' gives dates that do not come again in another year, so no "
            "classifier can be trained on them\nset months.step to periods of the calendar, or "
            "take [reference] out of the recipe"
        )
    classes: Collection[str]
    if recipe.reference.samples is not None:
        file, classes = recipe.reference.samples, classes_of(sample_choice(recipe))
        _refuse_shapes_of_labels(recipe.sampling)
    else:
        assert geobox is not None  # files of labels are read onto one
        options = reference_options(recipe.reference, recipe.sampling)
        reference = read_reference(options, geobox)
        file, classes = options.file, groups_by_class(reference.label, reference.group)
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{file.name!r} has {len(classes)} classes, which looks like "
            f"a mistake (at most {MOST_CLASSES}); say which labels are classes in reference.classes"
        )
    if unknown := sorted(set(recipe.reference.colours) - set(classes)):
        raise InputError(
            f"reference.colours names {unknown[0]!r}, which is no class in the area; classes are "
            f"{', '.join(classes)}"
        )
    Legend(classes=tuple(sorted(classes)), parents=recipe.reference.legend)  # refuses cycles
    if isinstance(classes, Mapping):
        refuse_few_groups(classes, recipe.training)


def _refuse_shapes_of_labels(sampling: SamplingSection) -> None:
    """Refuse keys that say how samples are drawn round labels, where they are drawn already."""
    for key in ("patch", "every"):
        if getattr(sampling, key) != 1:
            raise InputError(
                f"sampling.{key} = {getattr(sampling, key)} goes with reference.file; samples that "
                "were imported have their pixels already, so take it out"
            )


def take_samples(recipe: LearningRecipe) -> dict[str, Any]:
    """Store the samples that the recipe takes of imported ones; return what the report says.

    Raises `InputError` for samples that do not fit the recipe.
    """
    started = time.perf_counter()
    choice = sample_choice(recipe)
    _store(recipe, choose_samples(choice), choice.options)
    return describe_samples(recipe) | {"seconds": round(time.perf_counter() - started, 2)}


def sample_cube(
    recipe: Recipe, *, tile_digests: Mapping[str, str], client: "Client | None" = None
) -> dict[str, Any]:
    """Draw the recipe's samples from its cube and store them; return what the report says.

    Chunks are read in turn, or as one task each where there is a `client`; the samples are the
    same. The report has how far pixels of the cube resemble each other, and the block size that
    follows from it. Raises `InputError` for labels that cannot be used.
    """
    started = time.perf_counter()
    assert recipe.reference is not None  # the caller asks only for recipes with one
    cube = Layout.of(recipe.outputs).cube
    geobox = read_spec(cube).geobox
    reference = read_reference(reference_options(recipe.reference, recipe.sampling), geobox)
    measured = measure_autocorrelation(cube, seed=recipe.sampling.seed)
    options = sample_options(recipe.sampling, measured=measured.block_size)
    run = read_in_turn if client is None else _as_tasks(client)
    samples = draw_samples(cube, reference, options, tile_digests=tile_digests, run=run)
    _store(recipe, samples, options)
    return describe_samples(recipe) | {
        "dropped_names": samples.attrs["canopycube"]["dropped_names"],
        "autocorrelation": suggest_block_size(measured, used=options.block_size),
        "seconds": round(time.perf_counter() - started, 2),
    }


def sample_cubes(
    recipe: Recipe,
    cubes: Mapping[str, Place],
    references: Mapping[str, Reference],
    *,
    tile_digests: Mapping[str, Mapping[str, str]],
    join: Callable[[Mapping[str, xr.Dataset], SampleOptions], xr.Dataset],
    client: "Client | None" = None,
) -> dict[str, Any]:
    """Draw samples from several cubes, each by its own labels, and store them as one.

    `join` makes one of the samples of all. Where blocks are "auto", the largest that a cube asks
    for holds for all. Raises `InputError` for labels that cannot be used.
    """
    started = time.perf_counter()
    seed = recipe.sampling.seed
    measured = {name: measure_autocorrelation(cube, seed=seed) for name, cube in cubes.items()}
    widest = max(measured.values(), key=lambda one: one.block_size or 0)
    options = sample_options(recipe.sampling, measured=widest.block_size)
    run = read_in_turn if client is None else _as_tasks(client)
    parts = {
        name: draw_samples(
            cube,
            references[name],
            options,
            tile_digests=tile_digests[name],
            run=run,
            is_part=True,
        )
        for name, cube in cubes.items()
    }
    samples = join(parts, options)
    refuse_too_few(samples["label"].values, samples.attrs["canopycube"]["dropped"], options)
    _store(recipe, samples, options)
    return describe_samples(recipe) | {
        "dropped_names": samples.attrs["canopycube"]["dropped_names"],
        "autocorrelation": suggest_block_size(widest, used=options.block_size),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _as_tasks(client: "Client") -> Run:
    """Return how chunks are read on a cluster: one task each."""

    def run(reads: Sequence[ChunkRead], keep: Keep) -> None:
        number = {read.id: n for n, read in enumerate(reads)}
        work: TileWork[ChunkRead] = TileWork(
            step="sample",
            delay=lambda some: [delayed(read_chunk, pure=False)(read) for read in some],
        )
        run_tasks(client, reads, work, on_done=lambda name, values: keep(number[name], values))

    return run


def _store(recipe: LearningRecipe, samples: xr.Dataset, options: SampleOptions) -> None:
    """Write samples, as people have decided about their labels, as Zarr and as Parquet."""
    assert recipe.reference is not None  # the caller asks only for recipes with one
    if recipe.reference.decisions is not None:
        samples = apply_decisions(samples, recipe.reference.decisions)
        refuse_too_few(samples["label"].values, samples.attrs["canopycube"]["dropped"], options)
    path = Layout.of(recipe.outputs).samples
    write_samples(path, samples)
    write_parquet(path.with_suffix(".parquet"), samples)


def store_folds(path: Path, folds: Mapping[str, Int64[np.ndarray, " sample"]]) -> None:
    """Store the fold of every sample under each split, in the Zarr store and the table beside it.

    Raises `InputError` if there are no samples at `path`, or not as many as folds.
    """
    add_folds(path, folds)
    write_parquet(path.with_suffix(".parquet"), open_samples(path))


def suggest_block_size(measured: Autocorrelation, *, used: float) -> dict[str, Any]:
    """Return what the report says of a cube's autocorrelation and of the blocks that are `used`."""
    notes = list(measured.notes)
    if measured.range is not None and used < measured.range:
        notes.append(
            f"blocks of {used:g} m are shorter than the {measured.range:.0f} m over which pixels "
            "resemble each other, so neighbours lie on both sides of a block split; "
            f"sampling.block_size = {measured.block_size} is suggested"
        )
    return {
        "range": None if measured.range is None else round(measured.range, 1),
        "block_size": measured.block_size,
        "block_size_used": used,
        "lag": np.round(measured.lag, 1).tolist(),
        "correlation": np.round(measured.correlation, 3).tolist(),
        "layers": list(measured.layers),
        "notes": notes,
    }


def places_to_map(cube: Place) -> Float64[np.ndarray, "place 2"]:
    """Return some 2,500 places all over a cube's tiles, easting and northing in metres of its CRS.

    They are what `model.split` matches the distances of the `knndm` split to. Raises `InputError`
    if there is no cube.
    """
    spec = read_spec(cube)
    if spec.touched is None:
        row, column = (np.linspace(0, size - 1, min(size, 50)).round() for size in spec.shape[2:])
        places = cell_centres(spec.geobox, *np.meshgrid(row, column, indexing="ij"))
    else:
        regions = spec.regions()
        chosen = np.linspace(0, len(regions) - 1, 2500).round().astype(int)
        share = np.random.default_rng(0).random((2, len(chosen)))  # of a tile, from its corner
        tiles = [regions[number] for number in chosen.tolist()]
        size = np.array([(tile.height, tile.width) for tile in tiles]).T
        corner = np.array([(tile.top, tile.left) for tile in tiles]).T
        places = cell_centres(spec.geobox, *np.floor(corner + share * size))
    return np.column_stack([part.ravel() for part in places])


def describe_samples(recipe: LearningRecipe) -> dict[str, Any]:
    """Return counts of the stored samples, by class, group and block."""
    path = Layout.of(recipe.outputs).samples
    samples = open_samples(path)
    ours, labels = samples.attrs["canopycube"], samples["label"].values.tolist()
    return {
        "path": str(path),
        "samples": len(labels),
        "by_class": {name: labels.count(name) for name in sorted(set(labels))},
        "groups_by_class": groups_by_class(samples["label"].values, samples["group"].values),
        "groups": len(set(samples["group"].values.tolist())),
        "blocks": len(set(samples["block"].values.tolist())),
        **{
            f"{name}s": len(set(samples[name].values.tolist()))
            for name in ("region", "year")
            if name in samples
        },
        "dropped": ours["dropped"],
        **{name: ours[name] for name in ("decisions",) if name in ours},
    }
