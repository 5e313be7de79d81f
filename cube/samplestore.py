"""Samples in, a Zarr store out that appears whole or not at all; and back."""

import hashlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Int64
from zarr.codecs import BloscCodec, BloscShuffle

from cube.errors import InputError
from cube.periods import stored_times
from cube.zarrstore import read_attributes

_SAMPLES_PER_CHUNK = 8192
_VARIABLES = ("reflectance", "label", "group", "block", "period")
"""What samples have at least; those of a cube have `clear_count`, rows, columns and coordinates too."""

_DIGEST = "sha256"
"""Attribute of each variable: the digest of its values as they were written."""

_FOLD = "fold_"
"""What the name of a split is stored after, e.g. `fold_grouped`."""


def write_samples(path: Path, samples: xr.Dataset) -> None:
    """Write the dataset of `draw_samples` as a Zarr format 3 store, replacing older samples.

    Each variable keeps the digest of its values, by which damage is found. Text is stored as Zarr's
    `string`, time as days since 1970 (seconds or less for single acquisitions). Raises `InputError`
    if `path` holds anything but samples, or if `samples` lack a variable.
    """
    if missing := [name for name in _VARIABLES if name not in samples]:
        raise InputError(f"these are no samples: variables {', '.join(missing)} are missing")
    if path.exists():
        read_attributes(path, kind="samples")
    draft, old = path.with_name(f".{path.name}.draft"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # a crash came between the two renames below
        old.rename(path)
    for left_over in (draft, old):
        shutil.rmtree(left_over, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.create_group(draft, zarr_format=3, attributes=dict(samples.attrs))
    for name, variable in samples.variables.items():
        _write_variable(group, str(name), variable)
    with warnings.catch_warnings():
        # Consolidated metadata is an extension in format 3; without it xr.open_zarr warns instead.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(draft, zarr_format=3)
    if path.exists():
        path.rename(old)
    draft.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _write_variable(group: zarr.Group, name: str, variable: xr.Variable) -> None:
    values, attributes = variable.values, dict(variable.attrs)
    is_text = values.dtype.kind in "UOT"
    if values.dtype.kind == "M":
        values, encoding = stored_times(list(values))
        attributes |= encoding
    compressor = BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=str if is_text else values.dtype,
        chunks=tuple(
            max(1, min(size, _SAMPLES_PER_CHUNK) if dim == "sample" else size)
            for dim, size in zip(variable.dims, values.shape, strict=True)
        ),
        # text is not of fixed width, so there are no bytes to shuffle: zarr's own choice is right
        compressors="auto" if is_text else compressor,
        dimension_names=[str(dim) for dim in variable.dims],
        # a chunk that got lost is no value, rather than 0
        fill_value=np.nan if values.dtype.kind == "f" else None,
        attributes=attributes,
    )
    if values.size:
        array[...] = values.astype(object) if is_text else values
    array.attrs[_DIGEST] = _digest([values])


def _digest(blocks: Iterable[np.ndarray]) -> str:
    found = hashlib.sha256()
    for block in blocks:
        if block.dtype.kind in "UOT":
            found.update("".join(f"{text}\0" for text in block.ravel().tolist()).encode())
        else:
            found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()


def _refuse_damage(path: Path) -> None:
    """Raise `InputError` for a variable that does not hold what was written."""
    for name, array in zarr.open_group(path, mode="r").arrays():
        written = array.attrs.get(_DIGEST)
        if written is None:  # older samples
            continue
        try:
            is_whole = _digest(_blocks(array)) == written
        except (RuntimeError, ValueError, OSError) as error:
            raise _damaged(path, name) from error
        if not is_whole:
            raise _damaged(path, name)


def _blocks(array: "zarr.Array[Any]") -> Iterator[np.ndarray]:
    """Read an array in parts, which together are its values in their order."""
    for start in range(0, array.shape[0] if array.shape else 0, _SAMPLES_PER_CHUNK):
        yield np.asarray(array[start : start + _SAMPLES_PER_CHUNK])
    if not array.shape:
        yield np.asarray(array[...])


def _damaged(path: Path, name: str) -> InputError:
    return InputError(
        f"samples {str(path)!r} are damaged: {name!r} does not hold what was written (a copy that "
        "was cut off, a failing disk?); copy them again, or delete them and make them anew"
    )


def add_folds(path: str | Path, folds: Mapping[str, Int64[np.ndarray, " sample"]]) -> None:
    """Store the fold of every sample under each split, as `fold_<split> (sample)`.

    `folds` are 0, 1, … and -1 for samples that are never held out, by the name of the split. Folds
    of the same splits are replaced, all else stays; the store changes whole or not at all.

    Raises `InputError` if there are no samples at `path`, or not as many as folds.
    """
    path = Path(path)
    samples = open_samples(path).load()
    count = samples.sizes["sample"]
    for split, fold in folds.items():
        if fold.size != count:
            raise InputError(
                f"samples {str(path)!r} are {count:,}; the {split} split has {fold.size:,} folds"
            )
    added = {
        f"{_FOLD}{split}": (
            "sample",
            fold.astype(np.int32),
            {"long_name": f"fold of the {split} split; -1 is never held out"},
        )
        for split, fold in folds.items()
    }
    write_samples(path, samples.assign(added))


def stored_folds(samples: xr.Dataset) -> dict[str, Int64[np.ndarray, " sample"]]:
    """Return the folds that `add_folds` has stored, by the name of the split."""
    return {
        str(name).removeprefix(_FOLD): variable.values.astype(np.int64)
        for name, variable in samples.data_vars.items()
        if str(name).startswith(_FOLD)
    }


def open_samples(path: str | Path) -> xr.Dataset:
    """Open samples as `draw_samples` returned them; a variable is read when it is first used.

    Samples of a table have no `clear_count`, row or column, and coordinates only if it had them.
    Raises `InputError` if there are no samples at `path`, or if they are damaged.
    """
    path = Path(path)
    read_attributes(path, kind="samples")
    _refuse_damage(path)
    stored: xr.Dataset = xr.open_zarr(path, chunks=None, mask_and_scale=False)
    # xarray hands Zarr's strings over as NumPy's StringDType, which few libraries take
    text: dict[Any, Any] = {
        name: (variable.dims, np.array(variable.values.tolist(), dtype=str), variable.attrs)
        for name, variable in stored.variables.items()
        if variable.dtype.kind in "OT"
    }
    found = stored.assign(text).set_coords("period")
    for variable in found.variables.values():
        variable.attrs.pop(_DIGEST, None)
    return found
