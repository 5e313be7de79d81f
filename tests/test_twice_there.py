"""Facts that two packages need, neither of which may import the other: they must not drift apart."""

from cube.series import values
from model.audit import missing


def test_both_know_the_same_fill_of_modis_and_the_same_differences() -> None:
    assert (values._MODIS_FILL, values._MODIS_LEAST) == (missing.MODIS_FILL, missing.MODIS_LEAST)
    assert values._DIFFERENCES == missing.DIFFERENCES
