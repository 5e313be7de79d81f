"""A search of settings: without what is held out, and what it does where groups are too few."""

from pathlib import Path

import numpy as np
import pytest

from model import Samples, TrainConfig
from pipelines.progress import Reporter
from pipelines.recipe import TrainingSection
from pipelines.search_settings import SettingsSearch


def samples_of(groups: int) -> Samples:
    """Return two classes of monthly B08 that differ in level, three samples a group."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), 3)
    value = 0.3 + 0.3 * (group % 2) + random.normal(0, 0.02, (4, len(group)))
    return Samples(
        reflectance=value.T[:, :, np.newaxis].astype(np.float32),
        bands=("B08",),
        periods=("2022-04", "2022-05", "2022-06", "2022-07"),
        label=(group % 2).astype(np.int64),
        classes=("oak", "pine"),
        group=group.astype(np.int64),
        block=group.astype(np.int64),
    )


@pytest.fixture
def searching(tmp_path: Path) -> SettingsSearch:
    section = TrainingSection.model_validate(
        {"folds": 2, "search": {"trials": 2, "ranges": {"hidden": [4, 6]}}}
    )
    config = TrainConfig.preset(
        "default", features=("B08",), hidden=5, epochs=1, patience=None, members=1
    )
    return SettingsSearch(config=config, section=section, keep=tmp_path, reporter=Reporter())


def test_each_held_out_part_has_a_search_of_its_own(
    searching: SettingsSearch, tmp_path: Path
) -> None:
    samples, told = samples_of(12), []
    part = samples.take(np.flatnonzero(samples.group < 8).astype(np.int64))
    found = searching.settle(part, "block", 1, watch=told.append)
    assert found.hidden in (4, 5, 6)
    assert [one["fold"] for one in searching.settled] == [1]
    assert told[0] == "search without fold 2 of the block split, trial 1 of 2, fold 1"
    assert [folder.name for folder in tmp_path.iterdir()] == ["block-1"]
    assert searching.networks(5) == 5 * 2 * 2
    again = searching.settle(part, "block", 1)
    assert again == found


def test_settings_stay_as_given_where_groups_are_too_few(
    searching: SettingsSearch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = searching.settle(samples_of(2), "grouped", 0)
    assert found == searching.config
    assert not searching.settled
    complaint = " ".join(capsys.readouterr().err.split())
    assert (
        "search not without fold 1 of the grouped split, where settings stay as given" in complaint
    )
