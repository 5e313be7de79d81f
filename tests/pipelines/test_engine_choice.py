"""Workers that are elsewhere decide what a map is made with; the client only asks them."""

import numpy as np
import pytest
from distributed import LocalCluster
from repeated_cube import tile_samples

from cube.errors import InputError
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.engines import choose_engine
from model.learn import train_classifier
from pipelines.cluster import connect
from pipelines.engine_choice import Machine, machines_elsewhere, settled_engine, this_machine
from pipelines.recipe_cluster import ClusterSection

BANDS = ("B02", "B04", "B08", "B11")
PLAIN = Machine(has_device=False, fast="float32")
WITH_DEVICE = Machine(has_device=True, fast="float32")
TILES = Machine(has_device=False, fast="tiles")


@pytest.fixture(scope="module")
def classifier() -> SpeciesClassifier:
    year = np.random.default_rng(0).integers(100, 4000, (4, len(BANDS), 32, 32)).astype(np.int16)
    samples = tile_samples(year, BANDS, count=200, classes=3)
    config = TrainConfig.preset("default", features=["B04", "B08"], hidden=8, epochs=1)
    config_colours = ["#1b9e77", "#d95f02", "#7570b3"]
    return train_classifier(samples, config, colours=config_colours)


@pytest.mark.parametrize(
    ("asked", "machines", "name"),
    [
        ("auto", [PLAIN, PLAIN], "exact"),
        ("auto", [WITH_DEVICE, WITH_DEVICE], "cuda"),
        ("auto", [PLAIN, WITH_DEVICE], "auto"),
        ("exact", [WITH_DEVICE], "exact"),
        ("cuda-fast", [PLAIN, WITH_DEVICE], "cuda-fast"),
        ("cuda", [PLAIN], "exact"),
        ("cuda-fast", [PLAIN], "fast"),
    ],
)
def test_the_workers_have_the_device_not_the_client(
    classifier: SpeciesClassifier,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    machines: list[Machine],
    name: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    choice = settled_engine(classifier, asked, machines)
    assert choice.name == name
    assert choice.arithmetic == ("float32" if name == "fast" else "")
    if name in ("auto", "cuda", "cuda-fast"):
        count = sum(machine.has_device for machine in machines)
        have = f"{count} of {len(machines)} workers have a CUDA device"
        assert choice.reason == f"asked for {asked}; {have}"


def test_without_other_machines_this_one_decides(classifier: SpeciesClassifier) -> None:
    for asked in ("exact", "fast", "torch"):
        engine = choose_engine(classifier, asked)
        choice = settled_engine(classifier, asked)
        assert (choice.name, choice.reason) == (engine.name, engine.reason)
        assert choice.arithmetic == (engine.arithmetic if asked == "fast" else "")


def test_fast_is_refused_where_workers_compute_it_in_different_ways(
    classifier: SpeciesClassifier,
) -> None:
    assert settled_engine(classifier, "fast", [TILES, TILES]).arithmetic == "tiles"
    assert settled_engine(classifier, "exact", [PLAIN, TILES]).arithmetic == ""
    message = r"in different ways: 2 with tiles, 1 with float32\. Ask for engine exact, or .*_ISA"
    with pytest.raises(InputError, match=message):
        settled_engine(classifier, "fast", [TILES, PLAIN, TILES])


def test_workers_on_this_machine_are_not_asked_others_are() -> None:
    with connect(ClusterSection(kind="threads", workers=1)) as client:
        assert machines_elsewhere(client) == ()
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        section = ClusterSection(kind="scheduler", address=cluster.scheduler_address)
        with connect(section) as client:
            assert machines_elsewhere(client) == (this_machine(),) * 2
