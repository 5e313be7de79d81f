"""The list of spectral indices in, those that a classifier can be trained on out."""

from model.errors import FeatureError
from model.features import FEATURES, FeatureSet
from model.indices import index_names


def computable_indices() -> list[str]:
    """Return the indices that are computed from Sentinel-2's bands, but for our own features."""
    names = []
    for name in index_names():
        try:
            names.append(FeatureSet(names=(name,)).names[0])
        except FeatureError:
            continue
    return sorted(set(names) - set(FEATURES))
