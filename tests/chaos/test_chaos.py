"""Real schedulers, workers and commands, killed and cut off; `tests.benchmarks.chaos` does it longer."""

from pathlib import Path

import pytest

from tests.chaos.campaign import campaign
from tests.chaos.faults import BETWEEN, DURING
from tests.chaos.hosts import can_make_networks
from tests.chaos.site import Site, write_site

CAMPAIGN = (
    (
        "build",
        (
            "worker killed",
            "scheduler restarted",
            "partial files planted",
            "second command started",
            "host cut off",
            "command killed",
            "all workers killed",
        ),
        ("chunk deleted", "tile half written"),
    ),
    (
        "map",
        ("command interrupted", "worker suspended", "scheduler restarted", "command terminated"),
        ("bit flipped", "record lost"),
    ),
)
"""Step, faults while it runs, faults of what it has made."""


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on a machine that does nothing else
def test_no_fault_changes_a_byte_or_loses_a_tile(site: Site, tmp_path: Path) -> None:
    found = campaign(site, tmp_path, iter(CAMPAIGN), seed=20)
    told = found.as_json()
    print(told)  # pytest shows it where the test fails
    assert told["mismatches"] == 0, told["wrong"]
    assert told["tiles_lost"] == 0
    # only a command that was killed itself is started again
    assert told["commands_that_gave_up"] == 0, told["given_up"]
    # one or the other may come when all is done, and hosts of one machine cannot be cut off
    asked = [fault for _, during, between in CAMPAIGN for fault in (*during, *between)]
    assert told["faults"] >= len(asked) - 3
    assert ("host cut off" in told["faults_by_kind"]) == can_make_networks()
    assert all(one.begun >= one.tiles == 64 for one in found.outcomes), "the witness saw too little"
    assert told["left_over"] == 0, "what killed writers leave is swept up"
    # of 128 tiles: no fault costs more than what was under way when it came
    assert told["tiles_repeated"] < 64


def test_every_fault_of_the_campaign_exists() -> None:
    for _, during, between in CAMPAIGN:
        assert set(during) <= set(DURING)
        assert set(between) <= set(BETWEEN)
