"""Numbers in, `TrainConfig` out: how a network is built and trained."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from model.errors import ConfigError
from model.features import DEFAULT_FEATURES, REFERENCE_FEATURES, FeatureSet

Preset = Literal["default", "reference"]
ClassWeights = Literal["none", "root", "balanced"]
Schedule = Literal["constant", "one-cycle"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is built and trained; the field defaults are the preset `default`."""

    features: FeatureSet = DEFAULT_FEATURES
    """What the network sees at each step."""
    hidden: int = 128
    """Size of the LSTM's state, 1..4096."""
    layers: int = 1
    """LSTM layers on top of each other, 1..8."""
    bidirectional: bool = False
    """Whether a second LSTM reads the year backwards; doubles the cost."""
    dropout: float = 0.2
    """Share of values dropped between LSTM layers, 0..1 (1 excluded)."""
    head_dropout: float = 0.2
    """Share of values dropped before the linear layer, 0..1 (1 excluded)."""
    standardise: bool = True
    """Whether features are scaled to mean 0 and standard deviation 1 over clear training values."""
    mask_input: bool = True
    """Whether each step carries one more channel: 1 where the period was clear, 0 where missing."""
    month_dropout: float = 0.1
    """Chance that a clear period is hidden from the network in training, so that it learns to
    live with gaps; needs `mask_input`."""
    class_weights: ClassWeights = "root"
    """Weight of a class in the loss: all equal, or growing with rarity (1/sqrt(n) or 1/n)."""
    batch_size: int = 128
    """Samples in a step of the optimiser."""
    epochs: int = 40
    """Times every sample is seen, at most."""
    patience: int | None = 20
    """Epochs without a better validation loss after which training ends; None never stops early
    and keeps the last weights."""
    learning_rate: float = 4e-3
    """Adam's step, at its highest."""
    schedule: Schedule = "one-cycle"
    """`one-cycle` rises over the first fifth and falls to zero along a cosine."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW); with 0 the optimiser is plain Adam."""
    gradient_limit: float | None = 1.0
    """Largest norm of the gradient; longer ones are shortened. None leaves them alone."""
    seed: int = 0
    """One seed gives one set of weights, for one number of threads on one kind of processor."""
    threads: int = 1
    """Torch threads while training. One is right unless the machine is quiet: with other work on
    two cores, a second thread was measured at 3 to 12 s an epoch in place of 0.65 s."""

    def __post_init__(self) -> None:
        self._refuse_wrong_types()
        _check("hidden", self.hidden, 1, 4096)
        _check("layers", self.layers, 1, 8)
        _check("batch_size", self.batch_size, 1, 1_000_000)
        _check("epochs", self.epochs, 1, 100_000)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("threads", self.threads, 1, 1024)
        if self.patience is not None:
            _check("patience", self.patience, 1, 100_000)
        for name in ("dropout", "head_dropout", "month_dropout"):
            _check(name, getattr(self, name), 0.0, 0.99)
        _check("learning_rate", self.learning_rate, 1e-9, 10.0)
        _check("weight_decay", self.weight_decay, 0.0, 10.0)
        if self.gradient_limit is not None:
            _check("gradient_limit", self.gradient_limit, 1e-9, 1e9)
        _check_choice("class_weights", self.class_weights, get_args(ClassWeights))
        _check_choice("schedule", self.schedule, get_args(Schedule))
        if self.month_dropout > 0 and not self.mask_input:
            raise ConfigError(
                f"month_dropout is {self.month_dropout!r} but mask_input is off: the network could "
                "not tell a hidden period; set month_dropout to 0 or mask_input to true"
            )

    def _refuse_wrong_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "features":
                expected: tuple[type, ...] = (FeatureSet,)
            elif field.type is bool:
                expected = (bool,)
            elif field.type is int or field.name == "patience":
                expected = (int,)
            elif field.type is float or field.name == "gradient_limit":
                expected = (int, float)
            else:
                expected = (str,)
            if value is None and field.name in ("patience", "gradient_limit"):
                continue
            if not isinstance(value, expected) or (
                isinstance(value, bool) and bool not in expected
            ):
                names = " or ".join(kind.__name__ for kind in expected)
                raise ConfigError(f"{field.name} is {value!r}; expected {names}")
            if float in expected:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "TrainConfig":
        """Return the preset `name` with some fields replaced.

        `reference` is the network and training of the reference workflow: twenty unscaled
        features, missing values 0 (its table held -999 there, which swamps everything), hidden
        128, two layers, dropout 0.2 between them, last step to a linear layer; Adam 1e-3, batch
        32, 100 epochs, cross-entropy. Raises `ConfigError` for an unknown preset or field.
        """
        if name not in _PRESETS:
            raise ConfigError(f"preset {name!r} does not exist; known are {', '.join(_PRESETS)}")
        unknown = sorted(set(overrides) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"training has no setting {', '.join(unknown)}")
        if isinstance(overrides.get("features"), list | tuple):
            overrides["features"] = FeatureSet(names=tuple(overrides["features"]))
        return replace(_PRESETS[name], **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as what JSON can hold."""
        return asdict(self) | {"features": list(self.features.names)}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainConfig":
        """Read what `to_dict` wrote; raise `ConfigError` if a field is missing, unknown or wrong."""
        names = {field.name for field in fields(cls)}
        if set(settings) != names:
            missing, unknown = sorted(names - set(settings)), sorted(set(settings) - names)
            raise ConfigError(f"training settings lack {missing!r} and have unknown {unknown!r}")
        listed = settings["features"]
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise ConfigError(f"features are {listed!r}; expected a list of names")
        return cls(**settings | {"features": FeatureSet(names=tuple(listed))})


def _check(name: str, value: float | int, lowest: float | int, highest: float | int) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ConfigError(f"{name} is {value!r}; expected {lowest!r} to {highest!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


_PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "reference": TrainConfig(
        features=REFERENCE_FEATURES,
        layers=2,
        head_dropout=0.0,
        standardise=False,
        mask_input=False,
        month_dropout=0.0,
        class_weights="none",
        batch_size=32,
        epochs=100,
        patience=None,
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        gradient_limit=None,
    ),
}
