"""Ranges of settings in, settings that were tried and what they scored out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Literal

import numpy as np

from model.config import TrainConfig
from model.errors import ConfigError

Method = Literal["random", "tpe"]
Value = float | int | bool | str

_CORNERS = 256
"""Combinations of the other settings with which a value is tried out before the search."""

_WIDE = 10.0
"""A range whose ends differ by this factor or more is searched by orders of magnitude."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What one setting may be: one of several values, or a number between two ends."""

    name: str
    """Field of `TrainConfig`."""
    choices: tuple[Value, ...] = ()
    """The values, where they are listed."""
    lowest: float | int | None = None
    """Lower end of a number."""
    highest: float | int | None = None
    """Upper end of a number, included."""

    @classmethod
    def of(cls, name: str, values: Sequence[Value]) -> "Range":
        """Read a recipe's list: two different numbers are the ends of a range, others are choices.

        Raises `ConfigError` for an empty list or ends that do not rise.
        """
        if not values:
            raise ConfigError(f"search: {name} has no values; give choices, or lowest and highest")
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(values) != 2 or len(numbers) != 2:
            return cls(name=name, choices=tuple(values))
        lowest, highest = numbers
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise ConfigError(f"search: {name} from {lowest!r} to {highest!r}; ends must be finite")
        if not lowest < highest:
            raise ConfigError(f"search: {name} from {lowest!r} to {highest!r}; ends must rise")
        return cls(name=name, lowest=lowest, highest=highest)

    @property
    def corners(self) -> tuple[Value, ...]:
        """Every choice, or both ends."""
        if self.choices:
            return self.choices
        assert self.lowest is not None and self.highest is not None  # noqa: PT018
        return (self.lowest, self.highest)

    @property
    def is_whole(self) -> bool:
        """Whether a number between the ends is a whole one."""
        return isinstance(self.lowest, int) and isinstance(self.highest, int)

    @property
    def is_wide(self) -> bool:
        """Whether numbers are drawn by orders of magnitude."""
        assert self.lowest is not None and self.highest is not None  # noqa: PT018
        return self.lowest > 0 and self.highest / self.lowest >= _WIDE

    def draw(self, random: np.random.Generator) -> Value:
        """Return a value at random."""
        if self.choices:
            return self.choices[int(random.integers(len(self.choices)))]
        assert self.lowest is not None and self.highest is not None  # noqa: PT018
        if self.is_wide:
            value = math.exp(random.uniform(math.log(self.lowest), math.log(self.highest)))
        else:
            value = random.uniform(self.lowest, self.highest)
        value = min(max(value, self.lowest), self.highest)
        return round(value) if self.is_whole else float(value)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of settings and how good it was."""

    number: int
    """0 for the recipe's own settings, which are always tried first."""
    settings: dict[str, Value]
    """What differs from the recipe's own settings."""
    score: float
    """What `score` said; the higher the better; NaN where the settings cannot be trained."""


def search(
    config: TrainConfig,
    ranges: Mapping[str, Sequence[Value]],
    score: Callable[[TrainConfig], float],
    *,
    trials: int,
    method: Method = "random",
    seed: int = 0,
) -> Iterator[Trial]:
    """Try settings out, the given ones first; yields each trial when it is done.

    `score` must look at held-out groups only. Settings that do not go together score NaN. One seed
    gives one series of trials. Raises `ConfigError` for an unknown setting, for a value that goes
    with none of the others, and for `tpe` without optuna.
    """
    spans = tuple(Range.of(name, values) for name, values in ranges.items())
    known = set(config.to_dict()) - {"features", "seed", "threads"}
    if unknown := [span.name for span in spans if span.name not in known]:
        raise ConfigError(
            f"search: {unknown[0]!r} is no setting that can be searched; known are "
            f"{', '.join(sorted(known))}"
        )
    _refuse_what_never_trains(config, spans)
    yield Trial(number=0, settings={}, score=score(config))
    propose = _random if method == "random" else _tpe
    yield from propose(config, spans, score, trials=trials, seed=seed)


def _refuse_what_never_trains(config: TrainConfig, spans: tuple[Range, ...]) -> None:
    """Raise `ConfigError` for a value that is wrong on its own and with what else is searched."""
    for span in spans:
        others = [other for other in spans if other.name != span.name]
        corners = [
            dict(zip([other.name for other in others], values, strict=True))
            for values in islice(product(*(other.corners for other in others)), _CORNERS)
        ]
        for value in span.corners:
            errors = [_error_of(config, settings | {span.name: value}) for settings in corners]
            alone = _error_of(config, {span.name: value})
            if alone is not None and all(error is not None for error in errors):
                raise ConfigError(f"search: {span.name} {value!r} cannot be trained: {alone}")


def _error_of(config: TrainConfig, settings: dict[str, Value]) -> ConfigError | None:
    try:
        configured(config, Trial(number=0, settings=settings, score=math.nan))
    except ConfigError as error:
        return error
    return None


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the trial of the highest score, the earliest of equal ones."""
    scored = [trial for trial in trials if not math.isnan(trial.score)]
    if not scored:
        raise ConfigError("search: none of the settings that were tried can be trained")
    return max(scored, key=lambda trial: (trial.score, -trial.number))


def configured(config: TrainConfig, trial: Trial) -> TrainConfig:
    """Return the settings of a trial; raise `ConfigError` where they do not go together.

    As in a recipe, `epochs` switch `least_steps` off and another architecture brings its shape.
    """
    return config.changed(**trial.settings)


def _tried(
    config: TrainConfig,
    number: int,
    settings: dict[str, Value],
    score: Callable[[TrainConfig], float],
) -> Trial:
    trial = Trial(number=number, settings=settings, score=math.nan)
    try:
        return replace(trial, score=score(configured(config, trial)))
    except ConfigError:
        return trial  # settings that exclude each other, or diverge: told by the NaN


def _random(
    config: TrainConfig,
    spans: tuple[Range, ...],
    score: Callable[[TrainConfig], float],
    *,
    trials: int,
    seed: int,
) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    for number in range(1, trials):
        yield _tried(config, number, {span.name: span.draw(random) for span in spans}, score)


def _tpe(
    config: TrainConfig,
    spans: tuple[Range, ...],
    score: Callable[[TrainConfig], float],
    *,
    trials: int,
    seed: int,
) -> Iterator[Trial]:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by optuna."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "search method 'tpe' needs optuna: pip install 'canopycube[search]', or take 'random'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for number in range(1, trials):
        asked = study.ask()
        trial = _tried(config, number, {span.name: _ask(asked, span) for span in spans}, score)
        failed = math.isnan(trial.score)
        study.tell(
            asked,
            None if failed else trial.score,
            state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
        )
        yield trial


def _ask(trial: Any, span: Range) -> Value:
    if span.choices:
        chosen: Value = trial.suggest_categorical(span.name, list(span.choices))
        return chosen
    kind = trial.suggest_int if span.is_whole else trial.suggest_float
    number: Value = kind(span.name, span.lowest, span.highest, log=span.is_wide)
    return number
