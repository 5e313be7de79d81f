"""A setting of the training and its value in, a refusal of one that makes no sense out."""

from model.errors import ConfigError

RANGES: dict[str, tuple[float, float]] = {
    "hidden": (1, 4096),
    "layers": (1, 8),
    "input_pieces": (0, 4096),
    "members": (1, 64),
    "batch_size": (1, 1_000_000),
    "epochs": (1, 100_000),
    "least_steps": (0, 10_000_000),
    "patience": (1, 100_000),
    "seed": (0, 2**63 - 1),
    "threads": (1, 1024),
    "dropout": (0.0, 0.99),
    "head_dropout": (0.0, 0.99),
    "month_dropout": (0.0, 0.99),
    "shift_days": (0.0, 90.0),
    "noise": (0.0, 10.0),
    "mixup": (0.0, 10.0),
    "label_smoothing": (0.0, 0.9),
    "logit_adjustment": (0.0, 5.0),
    "focal_gamma": (0.0, 10.0),
    "learning_rate": (1e-9, 10.0),
    "weight_decay": (0.0, 10.0),
    "weight_average": (0.0, 0.9),
    "gradient_limit": (1e-9, 1e9),
}
"""Lowest and highest value of each number."""


def check_range(name: str, value: float | int, lowest: float | int, highest: float | int) -> None:
    """Raise `ConfigError` for a number beyond its range, or none."""
    if not lowest <= value <= highest:  # nor NaN
        raise ConfigError(f"{name} is {value!r}; expected {lowest!r} to {highest!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `ConfigError` for a word that is not known."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
