"""Words of the command line for tables of series: what each command takes, and what holds unsaid."""

import argparse

import pytest

from cube.errors import InputError
from cube.series import SeriesOptions
from pipelines.series_options import add_series_options, series_options


def parsed(*words: str, **taken: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_series_options(parser, **taken)  # type: ignore[arg-type]
    return parser.parse_args(words)


@pytest.mark.parametrize("taken", [{}, {"is_prediction": True}, {"only": ("label", "nodata")}])
def test_nothing_said_is_what_holds_by_default(taken: dict[str, object]) -> None:
    assert series_options(parsed(**taken)) == SeriesOptions()


def test_each_command_takes_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert series_options(parsed("--sort", "--duplicates", "mean")).sorts
    with pytest.raises(SystemExit):
        parsed("--sort", only=("label",))
    found = series_options(parsed("--label", "crop", "--nodata", "nan", only=("label", "nodata")))
    assert found.label == "crop"
    with pytest.raises(SystemExit):
        parsed("--help", is_prediction=True)
    assert "or calendar: that of the classifier" in " ".join(capsys.readouterr().out.split())


def test_a_wrong_step_is_told_with_what_the_command_takes() -> None:
    with pytest.raises(InputError, match=r"or a number of days$"):
        series_options(parsed("--step", "week"))
    with pytest.raises(InputError, match=r"or calendar: that of the classifier$"):
        series_options(parsed("--step", "week", is_prediction=True), has_classifier=True)
