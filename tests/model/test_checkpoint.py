import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import checkpoint as checkpoint_module
from model.config import TrainConfig
from model.errors import ConfigError
from model.samples import Samples
from model.train import EpochReport, fit

Make = Callable[..., Samples]

CONFIGS = {
    "plain": {},
    "everything": {
        "members": 2,
        "epochs": 4,
        "layers": 2,
        "pooling": "attention",
        "mixup": 0.3,
        "noise": 0.1,
        "shift_days": 10.0,
        "calendar_input": True,
        "label_smoothing": 0.1,
        "weight_average": 0.6,
    },
    "convolutions": {"architecture": "tempcnn", "hidden": 8, "epochs": 3, "weight_average": 0.5},
}


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 0.0)


@pytest.fixture
def small(quick: TrainConfig) -> TrainConfig:
    return replace(quick, epochs=5, hidden=8)


def elsewhere(samples: Samples) -> Samples:
    """The same samples in groups that no others are of."""
    return replace(samples, group=samples.group + 1000)


def weights(report: EpochReport) -> list[dict[str, torch.Tensor]]:
    return [network.state_dict() for network in report.best.networks]


def forge(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON with a checksum that fits, as someone who reads the code could."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    digest = sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(rest | {"checksum": digest}))


def assert_equal(first: EpochReport, second: EpochReport) -> None:
    assert (first.epoch, first.member, first.best.epoch) == (
        second.epoch,
        second.member,
        second.best.epoch,
    )
    assert (first.loss, first.validation_loss) == (second.loss, second.validation_loss)
    for one, two in zip(weights(first), weights(second), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("validated", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(
    make_samples: Make, small: TrainConfig, tmp_path: Path, name: str, validated: bool
) -> None:
    samples = make_samples(groups=9)
    validation = elsewhere(make_samples(groups=6, seed=1)) if validated else None
    settings = CONFIGS[name]
    config = (
        TrainConfig.preset("default", **settings) if "architecture" in settings
        else replace(small, **settings)
    )  # fmt: skip
    whole = list(fit(samples, config, validation=validation))
    for stop in {1, len(whole) // 2, len(whole) - 1, len(whole)}:
        folder = tmp_path / str(stop)
        run = fit(samples, config, validation=validation, checkpoint=folder)
        before = [next(run) for _ in range(stop)]
        run.close()
        torch.rand(5)
        after = list(fit(samples, config, validation=validation, checkpoint=folder))
        assert_equal(before[-1], after[0])
        assert after[0].note.startswith("going on after epoch")
        assert len(before) + len(after) - 1 == len(whole)
        for one, two in zip(whole[stop - 1 :], after, strict=True):
            assert_equal(one, two)


def test_early_stopping_goes_on_waiting(
    make_samples: Make, small: TrainConfig, tmp_path: Path
) -> None:
    train, validation = make_samples(groups=9), elsewhere(make_samples(groups=9, seed=1))
    wrong = replace(train, label=np.random.default_rng(0).permutation(train.label))
    config = replace(small, epochs=60, patience=4, learning_rate=3e-2, members=2)
    whole = list(fit(wrong, config, validation=validation))
    assert len(whole) < 100
    run = fit(wrong, config, validation=validation, checkpoint=tmp_path)
    first_member = [report.member for report in whole].count(1)
    for _ in range(first_member - 1):
        next(run)
    run.close()
    after = list(fit(wrong, config, validation=validation, checkpoint=tmp_path))
    assert len(after) == len(whole) - first_member + 2
    assert_equal(whole[-1], after[-1])


def test_a_kill_between_writings_costs_epochs_only(
    make_samples: Make, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = make_samples(groups=6)
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 1e9)
    run = fit(samples, small, checkpoint=tmp_path)
    for _ in range(3):
        next(run)
    run.close()
    after = list(fit(samples, small, checkpoint=tmp_path))
    assert [report.epoch for report in after] == [1, 2, 3, 4, 5]
    assert_equal(after[-1], list(fit(samples, small))[-1])
    assert [report.epoch for report in fit(samples, small, checkpoint=tmp_path)] == [5]


def test_a_checkpoint_of_something_else_is_replaced(
    make_samples: Make, small: TrainConfig, tmp_path: Path
) -> None:
    samples = make_samples(groups=6)
    list(fit(samples, small, checkpoint=tmp_path))
    others = [
        (samples, replace(small, seed=1), None),
        (make_samples(groups=6, seed=2), small, None),
        (samples, small, elsewhere(make_samples(groups=6, seed=3))),
    ]
    for other, config, validation in others:
        reports = list(fit(other, config, validation=validation, checkpoint=tmp_path))
        assert reports[0].note.endswith("of other samples or settings; training begins anew")
        assert [report.epoch for report in reports] == [1, 2, 3, 4, 5]
        assert len(list(tmp_path.iterdir())) == 2
        assert not any(report.note for report in reports[1:])


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "flipped",
        "gone",
        "json",
        "list",
        "edited",
        "huge",
        "count",
        "epoch",
        "averaged",
        "path",
    ],
)
def test_a_broken_checkpoint_is_replaced(
    make_samples: Make, small: TrainConfig, tmp_path: Path, damage: str
) -> None:
    samples = make_samples(groups=6)
    config = replace(small, epochs=2)
    expected = list(fit(samples, config, checkpoint=tmp_path))
    content_path = tmp_path / "checkpoint.json"
    state = next(tmp_path.glob("state-*.safetensors"))
    content, data = json.loads(content_path.read_text()), state.read_bytes()
    if damage == "cut":
        state.write_bytes(data[:-100])
    elif damage == "flipped":
        state.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "gone":
        state.unlink()
    elif damage == "json":
        content_path.write_bytes(b"{")
    elif damage == "list":
        content_path.write_text("[]")
    elif damage == "edited":
        content_path.write_text(json.dumps(content | {"done": 0, "more": 1}))
    elif damage == "huge":
        content_path.write_text(json.dumps(content) + " " * 2**21)
    elif damage in ("epoch", "averaged"):
        forge(content_path, content | {"member": content["member"] | {damage: 10**9}})
    elif damage == "count":
        forge(content_path, content | {"done": 7})
    else:
        forge(content_path, content | {"state": "../" * 21 + "x"})
    reports = list(fit(samples, config, checkpoint=tmp_path))
    assert "is broken (" in reports[0].note
    assert "\n" not in reports[0].note
    assert len(reports) == 2
    assert_equal(reports[-1], expected[-1])


def test_a_file_is_no_folder_for_a_checkpoint(
    make_samples: Make, small: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(ConfigError, match="notes' is a file; name a folder"):
        next(iter(fit(make_samples(groups=6), small, checkpoint=tmp_path / "notes")))
