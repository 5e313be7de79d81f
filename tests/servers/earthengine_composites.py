"""Many images in, one out: collections reduced, and mosaics."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from earthengine_graph import Function
from earthengine_grids import EngineError, Projection
from earthengine_reducers import (
    ALL,
    ANY,
    MEAN,
    MEDIAN,
    NUMBER,
    SUM,
    Output,
    Reducer,
    Stack,
    extremes,
    first,
)
from earthengine_values import Band, Collection, Image, Pixels, PixelType, pointwise


def band_names(images: Iterable[Image]) -> list[str]:
    """Return the bands that any of the images has, in the order of first sight."""
    return list(dict.fromkeys(name for image in images for name in image.bands))


def images_of(collection: Collection) -> list[Image]:
    """Return the images of a collection that holds nothing else."""
    images = [item for item in collection.items if isinstance(item, Image)]
    if len(images) != len(collection.items):
        raise EngineError("The collection holds something that is no image.")
    return images


def reduced(columns: Sequence[Sequence[Band]], output: Output) -> Band:
    """Return one output over the bands of each input."""
    kinds = [_joined_kind(column) for column in columns]
    number = len(columns[0])

    def compute(*found: Pixels) -> Pixels:
        stacks = [
            _stacked(found[i : i + number], kind)
            for i, kind in zip(range(0, len(found), number), kinds, strict=True)
        ]
        return output.compute(stacks)

    every = [band for column in columns for band in column]
    return pointwise(output.kind or kinds[output.of], compute, *every, projection=Projection())


def _joined_kind(bands: Sequence[Band]) -> PixelType:
    kind = bands[0].kind
    for band in bands[1:]:
        kind = kind.joined(band.kind)
    return kind


def _stacked(found: Sequence[Pixels], kind: PixelType) -> Stack:
    values = np.stack([one.values.astype(kind.dtype, copy=False) for one in found])
    return values, np.stack([one.mask for one in found])


def reduced_collection(collection: Collection, reducer: Reducer, _: float = 1.0) -> Image:
    """Reduce images, band by band or the bands of each together; no image gives no band."""
    images = images_of(collection)
    if not images:
        return Image()
    refuse_columns(reducer)
    if reducer.inputs == 1:
        return Image(
            bands={
                f"{name}_{output.name}": reduced([_of_name(images, name)], output)
                for name in band_names(images)
                for output in reducer.outputs
            }
        )
    if any(len(image.bands) != reducer.inputs for image in images):
        raise EngineError(
            f"ImageCollection.reduce: the reducer needs images of {reducer.inputs} bands each."
        )
    columns = [[list(image.bands.values())[i] for image in images] for i in range(reducer.inputs)]
    return Image(bands={output.name: reduced(columns, output) for output in reducer.outputs})


def _of_name(images: Iterable[Image], name: str) -> list[Band]:
    return [image.bands[name] for image in images if name in image.bands]


def keeping_names(reducer: Reducer) -> Function:
    """Return the reduction whose bands keep their names."""

    def function(collection: Collection) -> Image:
        reduced = reduced_collection(collection, reducer)
        kept = {name.rpartition("_")[0]: band for name, band in reduced.bands.items()}
        return Image(bands=kept)

    return function


def refuse_columns(reducer: Reducer) -> None:
    """Raise `EngineError` for a reducer that is known for columns only."""
    if not reducer.outputs or reducer.repeats is not None:
        raise EngineError("This server does not know this reducer for pixels.")


def reduced_image(image: Image, reducer: Reducer) -> Image:
    """Reduce the bands of an image to one band for each output."""
    refuse_columns(reducer)
    if reducer.inputs != 1:
        raise EngineError("Image.reduce: this server knows reducers of one input only.")
    if not image.bands:
        return Image(place=image.place)
    column = list(image.bands.values())
    bands = {output.name: reduced([column], output) for output in reducer.outputs}
    place = {name: replace(band, projection=column[0].projection) for name, band in bands.items()}
    return Image(bands=place, place=image.place)


def _mosaic(collection: Collection) -> Image:
    def last(stacks: Sequence[Stack]) -> Pixels:
        values, mask = stacks[0]
        return first([(values[::-1], mask[::-1])])

    images = images_of(collection)
    output = Output(name="last", compute=last)
    return Image(
        bands={name: reduced([_of_name(images, name)], output) for name in band_names(images)}
    )


def _quality_mosaic(collection: Collection, quality: str) -> Image:
    images = images_of(collection)
    if not images:
        return Image()
    bands = {}
    for image in images:
        if quality not in image.bands or list(image.bands) != list(images[0].bands):
            raise EngineError(
                f"ImageCollection.qualityMosaic: every image needs {quality!r} and the same bands."
            )
    best = [image.bands[quality] for image in images]

    def chosen(stacks: Sequence[Stack]) -> Pixels:
        (values, mask), (others, other_mask) = stacks
        ranked = np.where(mask, values.astype(np.float64), -np.inf)
        at = np.argmax(ranked, axis=0)[None]
        is_there = np.take_along_axis(other_mask, at, axis=0)[0] & mask.any(axis=0)
        return Pixels(np.take_along_axis(others, at, axis=0)[0], is_there)

    for name in images[0].bands:
        output = Output(name=name, compute=chosen, of=1)
        bands[name] = reduced([best, [image.bands[name] for image in images]], output)
    return Image(bands=bands)


COMPOSITE_FUNCTIONS: dict[str, Function] = {
    "reduce.median": keeping_names(MEDIAN),
    "reduce.mean": keeping_names(MEAN),
    "reduce.sum": keeping_names(SUM),
    "reduce.count": keeping_names(NUMBER),
    "reduce.max": keeping_names(extremes("max", 1)()),
    "reduce.min": keeping_names(extremes("min", -1)()),
    "reduce.and": keeping_names(ALL),
    "reduce.or": keeping_names(ANY),
    "ImageCollection.reduce": reduced_collection,
    "ImageCollection.mosaic": _mosaic,
    "ImageCollection.qualityMosaic": _quality_mosaic,
    "Image.reduce": reduced_image,
}
