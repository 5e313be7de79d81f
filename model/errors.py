"""What can be wrong with what the model is given; every one is a `ValueError` with a short text."""


class ModelError(ValueError):
    """Something the model was given cannot be used."""


class FeatureError(ModelError):
    """A feature that does not exist was asked for, or a band it needs is not there."""


class ConfigError(ModelError):
    """A training setting has a value it cannot have."""


class SampleError(ModelError):
    """Labelled samples are not what training needs (shape, units, labels, nothing clear)."""


class SplitError(ModelError):
    """Samples cannot be split so that something is left to train on and to score."""


class ClassifierError(ModelError):
    """A classifier cannot be read, or does not fit the cube it is asked to classify."""
