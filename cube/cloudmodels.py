"""Reflectance of one look in, a model's opinion on cloud and shadow out, merged with the SCL.

Models come from installed packages that register under the entry-point group
`canopycube.cloud_models`, and `omnicloudmask` is built in; a recipe can name one, never a path of
code. s2cloudless is not among them: it needs top-of-atmosphere reflectance with B10, which an L2A
product does not have.
"""

import csv
import importlib
import importlib.metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from cube.errors import InputError, WorkFailedError
from cube.mask import CLOUD_CLASSES, CLOUD_SHADOW, ClearMask

ENTRY_POINTS = "canopycube.cloud_models"
"""Group of entry points under which a package offers a class that makes a `CloudModel`."""

CLEAR = 5
"""What a model says of ground it takes for clear; it does not say what grows there."""

NO_OPINION = 0
"""What a model says where it has no data or will not decide; the SCL alone counts there."""

_OPINIONS = (NO_OPINION, CLOUD_SHADOW, CLEAR, *CLOUD_CLASSES)


@runtime_checkable
class CloudModel(Protocol):
    """Something that finds cloud and cloud shadow in one look."""

    name: str
    """What recipes call it."""
    bands: tuple[str, ...]
    """Canonical names of the bands it needs, in its order."""
    margin: int
    """Pixels round a window that it needs to see."""

    def classes(
        self, reflectance: Float32[np.ndarray, "band y x"], *, pixel_size: float
    ) -> UInt8[np.ndarray, "y x"]:
        """Return SCL codes: 3 shadow, 8, 9 or 10 cloud, 5 clear, 0 no opinion.

        `reflectance` is 0..1 in the order of `bands`, NaN where nothing was seen; `pixel_size` is
        in metres.
        """
        ...


class OmniCloudMask:
    """The model of Wright et al. 2025 (Remote Sensing of Environment 322, 114694) on L2A.

    Needs the package omnicloudmask and its weights, which have to be at hand: nothing is
    downloaded. A network gives pixels near the edge of a window slightly other answers than those
    inside, whatever the margin, so tiles agree nearly, not exactly.
    """

    name: str = "omnicloudmask"
    bands: tuple[str, ...] = ("B04", "B03", "B8A")
    margin: int = 64

    def __init__(self, weights: Path | None = None) -> None:
        """Look for weights in a folder, by default the package's own one of this user."""
        self._weights = weights

    def classes(
        self, reflectance: Float32[np.ndarray, "band y x"], *, pixel_size: float
    ) -> UInt8[np.ndarray, "y x"]:
        """Return SCL codes, see `CloudModel.classes`; thick cloud is 9 and thin cloud 8.

        Raises `InputError` for pixels outside 10..50 m, and where the package or its weights are
        missing.
        """
        if not 10 <= pixel_size <= 50:
            raise InputError(
                f"cloud model {self.name!r} was made for pixels of 10..50 m, not {pixel_size:g}; "
                "take another resolution or no model"
            )
        folder = self._folder_with_weights()
        is_seen = np.isfinite(reflectance).all(axis=0)
        if not is_seen.any():
            return np.full(is_seen.shape, NO_OPINION, np.uint8)
        height, width = is_seen.shape
        short = [max(0, _SMALLEST_PATCH - size) for size in is_seen.shape]
        counts = np.pad(
            np.where(is_seen, reflectance, np.float32(0)), ((0, 0), (0, short[0]), (0, short[1]))
        )  # (band, y, x); 0 is nodata
        patch = min(_LARGEST_PATCH, *counts.shape[1:])
        found = importlib.import_module("omnicloudmask").predict_from_array(
            counts,
            patch_size=patch,
            patch_overlap=min(300, patch // 2),
            no_data_value=0,
            destination_model_dir=folder,
        )
        codes = np.array([CLEAR, 9, 8, CLOUD_SHADOW], np.uint8)[found[0, :height, :width]]
        return np.where(is_seen, codes, np.uint8(NO_OPINION))

    def check(self) -> None:
        """Raise `InputError` where the package or its weights are missing."""
        self._folder_with_weights()

    def _folder_with_weights(self) -> Path:
        try:
            models = importlib.import_module("omnicloudmask.download_models")
        except ModuleNotFoundError as error:
            raise InputError(
                f"cloud model {self.name!r} needs a package that is not installed "
                f"({error.name}); run `pip install omnicloudmask`"
            ) from None
        folder = self._weights or Path(models.get_model_data_dir())
        version = models.get_latest_model_version()
        with models.model_index_path.open() as index:
            names = [
                row["file_name"]
                for row in csv.DictReader(index)
                if float(row["version"]) == version
            ]
        # the package takes a smaller file for a broken download and fetches it again
        missing = [name for name in names if not _is_larger(folder / name, 2**20)]
        if missing:
            raise InputError(
                f"cloud model {self.name!r} has no weights {', '.join(missing)} in "
                f"{str(folder)!r}; put them there beforehand, nothing is downloaded during a run"
            )
        return folder


_SMALLEST_PATCH, _LARGEST_PATCH = 50, 1000
"""Pixels along an edge of what omnicloudmask looks at at once."""


def _is_larger(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size > size


def cloud_model(name: str) -> CloudModel:
    """Return the cloud model that recipes call `name`.

    Raises `InputError` for a name that no installed package offers, and `WorkFailedError` where
    the package that offers it cannot be loaded or offers something else.
    """
    if name == OmniCloudMask.name:
        built_in = OmniCloudMask()
        built_in.check()
        return built_in
    offered = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted({OmniCloudMask.name, *offered}))
        raise InputError(
            f"cloud model {name!r} is unknown; known are {known}. Others come with packages that "
            f"offer the entry point {ENTRY_POINTS!r}"
        )
    try:
        model = offered[name].load()()
    except Exception as error:  # whatever a foreign package does while it loads
        raise WorkFailedError(
            f"cloud model {name!r} ({offered[name].value}) cannot be loaded: {error!r}"
        ) from error
    if not isinstance(model, CloudModel):
        raise WorkFailedError(
            f"cloud model {name!r} ({offered[name].value}) is no cloud model; it needs name, "
            "bands, margin and classes()"
        )
    return model


def with_opinion(
    scl: Integer[np.ndarray, "y x"],
    model: CloudModel,
    reflectance: Float32[np.ndarray, "band y x"],
    *,
    mask: ClearMask,
    pixel_size: float,
) -> Integer[np.ndarray, "y x"]:
    """Return the scene classes of one look, with what `model` sees on ground that they call clear.

    There cloud and shadow of the model take the place of the SCL's class; what `mask` does not
    take for clear stays as it is. So, once `mask` is applied with its buffer and its opening, a
    pixel is clear only if both say so. `reflectance` holds the model's bands, see
    `CloudModel.classes`. Raises `WorkFailedError` if the model answers with another shape or with
    codes that are none of its.
    """
    opinion = model.classes(reflectance, pixel_size=pixel_size)
    if opinion.shape != scl.shape or not np.isin(opinion, _OPINIONS).all():
        raise WorkFailedError(
            f"cloud model {model.name!r} answered {opinion.shape} with classes "
            f"{np.unique(opinion).tolist()}; expected {scl.shape} with {sorted(_OPINIONS)}"
        )
    is_doubted = np.isin(scl, mask.clear_classes) & np.isin(opinion, (CLOUD_SHADOW, *CLOUD_CLASSES))
    return np.where(is_doubted, opinion.astype(scl.dtype), scl)
