"""A recipe and a finished cube, or imported samples, in; labelled sequences out."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.reference import ReferenceOptions, read_reference
from cube.sample import SampleOptions, draw_samples
from cube.samplestore import open_samples, write_samples
from cube.store import read_spec
from cube.tables.choose import SampleChoice, choose_samples, classes_of
from pipelines.plan import Layout
from pipelines.recipe import Recipe, ReferenceSection, SamplingSection

MOST_CLASSES = 60
"""More classes than this are taken for a wrong column, or a raster of measurements."""


def reference_options(section: ReferenceSection, sampling: SamplingSection) -> ReferenceOptions:
    """Return how the recipe wants its file of ground truth read."""
    assert section.file is not None  # the caller asks only for recipes with one
    return ReferenceOptions(
        file=section.file,
        class_column=section.class_column,
        group_column=section.group_column,
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


def sample_options(sampling: SamplingSection) -> SampleOptions:
    """Return which labelled cells the recipe wants as samples."""
    return SampleOptions(
        max_per_class=sampling.max_per_class,
        max_per_group=sampling.max_per_group,
        min_clear_months=sampling.min_clear_months,
        block_size=sampling.block_size,
        seed=sampling.seed,
    )


def sample_choice(recipe: Recipe) -> SampleChoice:
    """Return what the recipe wants of the samples that it names.

    Raises `InputError` if the run would write its own samples over them.
    """
    assert recipe.reference is not None  # the caller asks only for recipes with samples
    assert recipe.reference.samples is not None
    if Layout(folder=recipe.outputs.folder).samples.resolve() == recipe.reference.samples.resolve():
        raise InputError(
            f"outputs.folder {str(recipe.outputs.folder)!r} would put the run's samples in place of "
            "those that reference.samples names; choose another outputs.folder"
        )
    return SampleChoice(
        path=recipe.reference.samples,
        bands=recipe.bands,
        periods=recipe.months.calendar,
        classes=recipe.reference.classes,
        drop=frozenset(recipe.reference.drop),
        options=sample_options(recipe.sampling),
    )


def check_reference(recipe: Recipe, geobox: GeoBox | None) -> None:
    """Refuse labels that cannot be used on the cube's grid, colours of no class, acquisitions.

    Imported samples have places of their own and need no grid. Raises `InputError`.
    """
    assert recipe.reference is not None  # the caller asks only for recipes with one
    if recipe.months.step == "acquisition":
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
        file, classes = options.file, read_reference(options, geobox).counts
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


def _refuse_shapes_of_labels(sampling: SamplingSection) -> None:
    """Refuse keys that say how samples are drawn round labels, where they are drawn already."""
    for key in ("patch", "every"):
        if getattr(sampling, key) != 1:
            raise InputError(
                f"sampling.{key} = {getattr(sampling, key)} goes with reference.file; samples that "
                "were imported have their pixels already, so take it out"
            )


def take_samples(recipe: Recipe) -> dict[str, Any]:
    """Store the samples that the recipe takes of imported ones; return what the report says.

    Raises `InputError` for samples that do not fit the recipe.
    """
    started = time.perf_counter()
    layout = Layout(folder=recipe.outputs.folder)
    write_samples(layout.samples, choose_samples(sample_choice(recipe)))
    return describe_samples(recipe) | {"seconds": round(time.perf_counter() - started, 2)}


def sample_cube(recipe: Recipe, *, tile_digests: Mapping[str, str]) -> dict[str, Any]:
    """Draw the recipe's samples from its cube and store them; return what the report says.

    Raises `InputError` for labels that cannot be used.
    """
    started = time.perf_counter()
    assert recipe.reference is not None  # the caller asks only for recipes with one
    layout = Layout(folder=recipe.outputs.folder)
    geobox = read_spec(layout.cube).geobox
    reference = read_reference(reference_options(recipe.reference, recipe.sampling), geobox)
    options = sample_options(recipe.sampling)
    samples = draw_samples(layout.cube, reference, options, tile_digests=tile_digests)
    write_samples(layout.samples, samples)
    return describe_samples(recipe) | {"seconds": round(time.perf_counter() - started, 2)}


def describe_samples(recipe: Recipe) -> dict[str, Any]:
    """Return counts of the stored samples, by class, group and block."""
    path = Layout(folder=recipe.outputs.folder).samples
    samples = open_samples(path)
    labels = samples["label"].values.tolist()
    groups = samples["group"].values.tolist()
    return {
        "path": str(path),
        "samples": len(labels),
        "by_class": {name: labels.count(name) for name in sorted(set(labels))},
        "groups_by_class": {
            name: len({group for group, label in zip(groups, labels, strict=True) if label == name})
            for name in sorted(set(labels))
        },
        "groups": len(set(samples["group"].values.tolist())),
        "blocks": len(set(samples["block"].values.tolist())),
        "dropped": samples.attrs["canopycube"]["dropped"],
    }
