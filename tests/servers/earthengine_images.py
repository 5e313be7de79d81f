"""Images in, images with other bands or masks out: what Earth Engine does to single images.

Assumed: a mask is on or off. One in between is an error, for what Earth Engine's reducers make of
those is not what the project wants.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from earthengine_graph import Function
from earthengine_grids import EngineError
from earthengine_values import (
    Band,
    Collection,
    Image,
    Pixels,
    PixelType,
    as_image,
    constant_band,
    inside_of,
    pointwise,
)


def with_bands(image: Image, bands: Mapping[str, Band]) -> Image:
    """Return an image that keeps its properties and footprint."""
    return replace(image, bands=dict(bands))


def changed(image: Image, change: Callable[[Band], Band]) -> Image:
    """Return an image with every band changed."""
    return with_bands(image, {name: change(band) for name, band in image.bands.items()})


def paired(name: str, first: Image, second: Image) -> dict[str, tuple[Band, Band]]:
    """Return the bands that two images' function takes together, by the name of the result."""
    one, two = dict(first.bands), dict(second.bands)
    if len(one) == len(two):
        if one.keys() == two.keys():
            return {key: (one[key], two[key]) for key in one}
        return dict(zip(one, zip(one.values(), two.values(), strict=True), strict=True))
    if not one or not two:
        raise EngineError(
            f"{name}: If one image has no bands, the other must also have no bands. "
            f"Got {len(one)} and {len(two)}."
        )
    if len(two) == 1:
        return {key: (band, *two.values()) for key, band in one.items()}
    if len(one) == 1:
        return {key: (*one.values(), band) for key, band in two.items()}
    raise EngineError(f"{name}: images of {len(one)} and {len(two)} bands cannot be paired.")


def _select(image: Image, selectors: list[Any], names: list[str] | None) -> Image:
    selectors = selectors if isinstance(selectors, list | tuple) else [selectors]
    have, chosen = list(image.bands), []
    for one in selectors:
        if isinstance(one, int | float):
            if not 0 <= one < len(have):
                raise EngineError(
                    f"Image.select: Band index {one} out of range; the image has {len(have)}."
                )
            found = [have[int(one)]]
        else:
            found = [one] if one in have else [b for b in have if re.fullmatch(one, b)]
        if not found:
            raise EngineError(
                f"Image.select: Band pattern '{one}' did not match any bands. "
                f"Available bands: [{', '.join(have)}]"
            )
        chosen += found
    kept = with_bands(image, {name: image.bands[name] for name in chosen})
    if len(kept.bands) != len(chosen):
        raise EngineError(f"Image.select: a band is selected twice: {chosen}.")
    return kept if names is None else _rename(kept, names)


def _rename(image: Image, names: list[str]) -> Image:
    names = [names] if isinstance(names, str) else list(names)
    if len(names) != len(image.bands):
        raise EngineError(
            f"Image.rename: The number of names ({len(names)}) must match the number of bands "
            f"({len(image.bands)})."
        )
    if len(set(names)) != len(names):
        raise EngineError(f"Image.rename: a name is given twice: {names}.")
    return with_bands(image, dict(zip(names, image.bands.values(), strict=True)))


def _add_bands(to: Image, of: Image, names: list[str] | None, overwrite: bool) -> Image:
    bands = dict(to.bands)
    if names is not None:
        of = _select(of, names, None)
    for name, band in of.bands.items():
        free, number = name, 1
        while free in bands and not overwrite:
            free, number = f"{name}_{number}", number + 1
        bands[free] = band
    return with_bands(to, bands)


def _is_on(pixels: Pixels) -> np.ndarray:
    values = pixels.values
    if values.dtype.kind == "f" and ((values > 0) & (values < 1) & pixels.mask).any():
        raise EngineError("Masks between 0 and 1 are not known to this server; compare first.")
    return pixels.mask & (values != 0)


def update_mask(image: Image, mask: Image) -> Image:
    """Mask an image also where `mask` is 0 or masked."""
    return _masked(image, mask, lambda a, m: Pixels(a.values, a.mask & _is_on(m)))


def _mask(image: Image, mask: Image | None) -> Image:
    if mask is None:
        kind = PixelType(precision="float", low=0, high=1)

        def own(a: Pixels) -> Pixels:
            return Pixels(a.mask.astype(np.float32), np.ones_like(a.mask))

        return changed(image, lambda band: pointwise(kind, own, band))

    def put(a: Pixels, m: Pixels) -> Pixels:
        return Pixels(np.where(a.mask, a.values, 0), _is_on(m))

    return _masked(image, mask, put)


def _masked(image: Image, mask: Image, compute: Callable[..., Pixels]) -> Image:
    masks = list(mask.bands.values())
    if len(masks) == 1:
        masks *= len(image.bands)
    if len(masks) != len(image.bands):
        raise EngineError(
            f"Image.updateMask: {len(masks)} masks cannot be paired with {len(image.bands)} bands."
        )
    bands = {
        name: pointwise(band.kind, compute, band, one)
        for (name, band), one in zip(image.bands.items(), masks, strict=True)
    }
    return with_bands(image, bands)


def _unmask(image: Image, value: Image | None, same_footprint: bool) -> Image:
    value = as_image(0) if value is None else value
    inside = inside_of(image.place) if same_footprint and image.place is not None else None

    def filled(a: Pixels, b: Pixels, *inner: Pixels) -> Pixels:
        where = ~a.mask & b.mask
        for one in inner:
            where &= one.values != 0
        kind = np.promote_types(a.values.dtype, b.values.dtype)
        return Pixels(np.where(where, b.values, a.values).astype(kind), a.mask | where)

    extra = () if inside is None else (inside,)
    bands = {
        name: pointwise(one.kind.joined(two.kind), filled, one, two, *extra)
        for name, (one, two) in paired("Image.unmask", image, value).items()
    }
    return with_bands(image, {name: bands[name] for name in bands})


def _where(image: Image, test: Image, value: Image) -> Image:
    def chosen(a: Pixels, t: Pixels, v: Pixels) -> Pixels:
        is_other = t.mask & (t.values != 0) & v.mask & a.mask
        return Pixels(np.where(is_other, v.values, a.values), a.mask)

    tests, values = paired("Image.where", image, test), paired("Image.where", image, value)
    bands = {}
    for name, band in image.bands.items():
        other = values[name][1]
        bands[name] = pointwise(band.kind.joined(other.kind), chosen, band, tests[name][1], other)
    return with_bands(image, bands)


def _constant(value: Any) -> Image:
    return as_image(value)


def _metadata(image: Image, key: str, name: str | None) -> Image:
    if key not in image.properties:
        raise EngineError(f"Image.metadata: property '{key}' is missing.")
    return Image(bands={name or key: constant_band(image.properties[key])}, place=image.place)


def _link(image: Image, collection: Collection, bands: Any, properties: Any, key: str) -> Image:
    """Add bands and properties of the first image whose `key` is the same; else masked bands."""
    if not collection.items:
        raise EngineError("Image.linkCollection: the collection is empty.")
    match = [i for i in collection.items if i.properties.get(key) == image.properties.get(key)]
    other = match[0] if match else collection.items[0]
    assert isinstance(other, Image)
    linked = image
    if bands is not None:
        of = _select(other, bands if isinstance(bands, list) else [bands], None)
        if not match:
            of = update_mask(of, as_image(0))
        linked = _add_bands(linked, of, None, False)
    wanted = properties if isinstance(properties, list) else [properties] if properties else []
    told = {one: other.properties.get(one) if match else None for one in wanted}
    return replace(linked, properties={**linked.properties, **told})


IMAGE_FUNCTIONS: dict[str, Function] = {
    "Image.constant": _constant,
    "Image.select": _select,
    "Image.rename": _rename,
    "Image.addBands": _add_bands,
    "Image.updateMask": update_mask,
    "Image.mask": _mask,
    "Image.unmask": _unmask,
    "Image.where": _where,
    "Image.bandNames": lambda image: list(image.bands),
    "Image.bandTypes": lambda image: {n: b.kind for n, b in image.bands.items()},
    "Image.metadata": _metadata,
    "Image.linkCollection": _link,
}
