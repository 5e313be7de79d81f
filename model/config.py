"""Numbers in, `TrainConfig` out: how a network is built and trained."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from model.errors import ConfigError
from model.features import DEFAULT_FEATURES, REFERENCE_FEATURES, FeatureSet
from model.ranges import RANGES, check_choice, check_range

Preset = Literal["default", "reference"]
Architecture = Literal["lstm", "tempcnn", "ltae", "inception"]
Pooling = Literal["last", "mean", "attention", "attention-max"]
ClassWeights = Literal["none", "root", "balanced"]
Schedule = Literal["constant", "one-cycle"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is built and trained; the field defaults are the preset `default`."""

    features: FeatureSet = DEFAULT_FEATURES
    """What the network sees at each step."""
    architecture: Architecture = "lstm"
    """What reads the sequence: an LSTM, convolutions over time (TempCNN, Pelletier 2019;
    inception, Ismail Fawaz 2020) or attention over time (L-TAE, Garnot & Landrieu 2020)."""
    hidden: int = 64
    """Width, 1..4096: the LSTM's state, a convolution's filters, the attention's channels."""
    layers: int = 1
    """LSTM layers, convolutions or inception modules on top of each other, 1..8."""
    bidirectional: bool = True
    """Whether a second LSTM reads the year backwards; doubles the cost."""
    pooling: Pooling = "attention-max"
    """What of the LSTM's states is read: the last, their mean, or a learned weighted mean, alone
    or beside the largest value of each unit."""
    layer_norm: bool = False
    """Whether what is read of the LSTM is brought to mean 0 and deviation 1 per sample."""
    dropout: float = 0.2
    """Share of values dropped between layers, 0..1 (1 excluded)."""
    head_dropout: float = 0.3
    """Share of values dropped before the linear layer, 0..1 (1 excluded)."""
    standardise: bool = True
    """Whether features are scaled to mean 0 and standard deviation 1 over clear training values."""
    mask_input: bool = True
    """Whether each step carries one more channel: 1 where the period was clear, 0 where missing."""
    calendar_input: bool = True
    """Whether each step carries two more channels: sine and cosine of its day of the year."""
    input_pieces: int = 128
    """Pieces that the features' ranges are cut into, all together: each gets 4 to 32 of them, and
    a channel for each (`PiecewiseEncoding`). 0 adds none; needs `standardise` and `mask_input`."""
    members: int = 1
    """Networks that are trained one after another, each from a seed of its own, and whose
    probabilities are averaged, 1..64. Three gained 0.0 and 0.5 points on a simulated forest, for
    three times the training and mapping: one is the default."""
    month_dropout: float = 0.4
    """Largest chance that a clear period is hidden from the network in training, so that it learns
    to live with gaps; each sample draws its own up to this. Needs `mask_input`."""
    shift_days: float = 20.0
    """In training the season of half of the samples is moved by up to so many days either way,
    0..90; values between steps are interpolated. Measured with one seed: on a simulated forest a
    year 15 days early or late costs 3.0 points of accuracy, 5.2 if this is 0; MODIS series of
    held-out years get 0.893 (0.890 with 0 and mixup 0.4, 0.877 with both)."""
    noise: float = 0.05
    """Standard deviation of what is added to clear values in training, in standard deviations
    of the feature, 0..10; needs `standardise`."""
    mixup: float = 0.0
    """Parameter of the beta distribution by which two samples and their labels are blended in
    training (Zhang 2018), 0..10; 0 blends none. Beside `shift_days`, 0.4 costs 1.6 points on
    held-out years."""
    label_smoothing: float = 0.05
    """Share of each label that is spread over all classes, 0..0.9."""
    class_weights: ClassWeights = "root"
    """Weight of a class in the loss: all equal, or growing with rarity (1/sqrt(n) or 1/n)."""
    balanced_sampling: bool = False
    """Whether an epoch draws as many samples of each class (with replacement)."""
    logit_adjustment: float = 0.0
    """How far the classes' frequency is taken out of the scores (tau of Menon 2021), 0..5."""
    focal_gamma: float = 0.0
    """How far the loss turns away from samples already known (Lin 2017), 0..10."""
    batch_size: int = 64
    """Samples in a step of the optimiser."""
    epochs: int = 12
    """Times every sample is seen, at most."""
    least_steps: int = 800
    """Steps that the optimiser takes at least: where samples are few, epochs are added."""
    patience: int | None = None
    """Epochs without a better validation loss after which training ends; None never stops early
    and keeps the last weights."""
    learning_rate: float = 6e-3
    """Adam's step, at its highest."""
    schedule: Schedule = "one-cycle"
    """`one-cycle` rises over the first fifth and falls to zero along a cosine."""
    weight_decay: float = 1e-2
    """Decoupled weight decay (AdamW) of matrices; with 0 the optimiser is plain Adam."""
    weight_average: float = 0.0
    """Share of the epochs, counted from the last, whose weights are averaged, 0..0.9."""
    gradient_limit: float | None = 1.0
    """Largest norm of the gradient; longer ones are shortened. None leaves them alone."""
    seed: int = 0
    """One seed gives one set of weights, for one number of threads on one kind of processor."""
    threads: int = 1
    """Torch threads while training. One is right unless the machine is quiet: with other work on
    two cores, a second thread was measured at 3 to 12 s an epoch in place of 0.65 s."""

    def __post_init__(self) -> None:
        self._refuse_wrong_types()
        for name, (lowest, highest) in RANGES.items():
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), lowest, highest)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        """Refuse settings that contradict each other or would do nothing."""
        if self.month_dropout > 0 and not self.mask_input:
            raise ConfigError(
                f"month_dropout is {self.month_dropout!r} but mask_input is off: the network could "
                "not tell a hidden period; set month_dropout to 0 or mask_input to true"
            )
        if self.noise > 0 and not self.standardise:
            raise ConfigError(
                f"noise is {self.noise!r} but standardise is off: features of different units "
                "would get the same noise; set noise to 0 or standardise to true"
            )
        if self.input_pieces and not (self.standardise and self.mask_input):
            raise ConfigError(
                f"input_pieces is {self.input_pieces!r} but standardise or mask_input is off; "
                "switch both on or set input_pieces to 0"
            )
        if self.architecture != "lstm":
            for name in _LSTM_ONLY:
                if getattr(self, name) != _LSTM_ONLY[name]:
                    raise ConfigError(
                        f"{name} is {getattr(self, name)!r} but architecture is "
                        f"{self.architecture!r}; only an lstm has it, leave it out"
                    )
        if self.architecture == "ltae" and self.layers > 1:
            raise ConfigError(f"layers is {self.layers!r}; an ltae has one, leave it out")
        balancing = {
            "class_weights": self.class_weights != "none",
            "balanced_sampling": self.balanced_sampling,
            "logit_adjustment": self.logit_adjustment > 0,
        }
        used = [name for name, is_used in balancing.items() if is_used]
        if len(used) > 1:
            raise ConfigError(
                f"{' and '.join(used)} all make up for rare classes, which would be done "
                "twice; keep one (class_weights 'none' switches the weights off)"
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
                object.__setattr__(self, field.name, _float(field.name, value))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "TrainConfig":
        """Return the preset `name` with some fields replaced.

        `reference` is the network and training of the reference workflow: twenty unscaled
        features, missing values 0 (its table held -999 there, which swamps everything), hidden
        128, two layers, dropout 0.2 between them, last step to a linear layer; Adam 1e-3, batch
        32, 100 epochs, cross-entropy. Another `architecture` than the preset's brings the width,
        depth and dropout of its paper; `epochs` switch `least_steps` off. Raises `ConfigError` for
        an unknown preset or field.
        """
        if name not in _PRESETS:
            raise ConfigError(f"preset {name!r} does not exist; known are {', '.join(_PRESETS)}")
        unknown = sorted(set(overrides) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"training has no setting {', '.join(unknown)}")
        if isinstance(overrides.get("features"), list | tuple):
            overrides["features"] = _feature_set(list(overrides["features"]))
        return _PRESETS[name].changed(**overrides)

    def changed(self, **overrides: Any) -> "TrainConfig":
        """Return these settings with some replaced, by the rules of `preset`."""
        if "epochs" in overrides:  # who asks for a number of epochs gets it
            overrides = {"least_steps": 0} | overrides
        architecture = overrides.get("architecture", self.architecture)
        shape = {} if architecture == self.architecture else _SHAPES.get(str(architecture), {})
        return replace(self, **(shape | overrides))

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
        return cls(**settings | {"features": _feature_set(settings["features"])})


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{name} is beyond all floating-point numbers") from None


def _feature_set(listed: Any) -> FeatureSet:
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ConfigError(f"features are {listed!r}; expected a list of names")
    return FeatureSet(names=tuple(listed))


_LSTM_ONLY: dict[str, Any] = {"bidirectional": False, "pooling": "last", "layer_norm": False}
"""Settings of an LSTM, with the value that other networks need."""

_SHAPES: dict[str, dict[str, Any]] = {
    "tempcnn": _LSTM_ONLY
    | {"learning_rate": 3e-3, "hidden": 64, "layers": 3, "dropout": 0.5, "head_dropout": 0.5},
    "ltae": _LSTM_ONLY
    | {"learning_rate": 3e-3, "hidden": 128, "layers": 1, "dropout": 0.1, "head_dropout": 0.2},
    "inception": _LSTM_ONLY
    | {"learning_rate": 3e-3, "hidden": 128, "layers": 3, "dropout": 0.0, "head_dropout": 0.2},
}
"""What a network other than the LSTM is like in its paper, and how fast it can learn."""

_SHAPES["lstm"] = {name: getattr(TrainConfig, name) for name in _SHAPES["tempcnn"]}

_CHOICES: dict[str, tuple[str, ...]] = {
    "architecture": get_args(Architecture),
    "pooling": get_args(Pooling),
    "class_weights": get_args(ClassWeights),
    "schedule": get_args(Schedule),
}

_PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "reference": TrainConfig(
        features=REFERENCE_FEATURES,
        hidden=128,
        layers=2,
        bidirectional=False,
        pooling="last",
        head_dropout=0.0,
        standardise=False,
        mask_input=False,
        calendar_input=False,
        input_pieces=0,
        month_dropout=0.0,
        shift_days=0.0,
        noise=0.0,
        mixup=0.0,
        label_smoothing=0.0,
        class_weights="none",
        batch_size=32,
        epochs=100,
        least_steps=0,
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        gradient_limit=None,
    ),
}
