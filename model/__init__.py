"""The classifier: arrays in, arrays out.

Knows nothing of cubes, maps or files of pixels. What is here imports no torch; take the rest from
`model.train`, `model.crossvalidate`, `model.classifier` and `model.predict`.
"""

from model.config import TrainConfig
from model.errors import ClassifierError, ConfigError, FeatureError, SampleError, SplitError
from model.features import DEFAULT_FEATURES, REFERENCE_FEATURES, FeatureSet
from model.samples import Samples

__all__ = [
    "DEFAULT_FEATURES",
    "REFERENCE_FEATURES",
    "ClassifierError",
    "ConfigError",
    "FeatureError",
    "FeatureSet",
    "SampleError",
    "Samples",
    "SplitError",
    "TrainConfig",
]
