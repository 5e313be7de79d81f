"""Errors that leave a worker arrive as what they are."""

import pickle

import pytest
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioIOError

from cube.errors import InputError, WorkFailedError, sendable_errors
from cube.stac import SceneReadError, SceneUnreachableError


def fail(kind):
    try:
        try:
            raise CPLE_BaseError(1, 2, "TIFFReadEncodedTile() failed")
        except CPLE_BaseError as error:
            raise RasterioIOError("Read failed") from error
    except RasterioIOError as error:
        raise kind("a.tif cannot be read") from error


@pytest.mark.parametrize(
    "kind", [InputError, WorkFailedError, SceneReadError, SceneUnreachableError]
)
def test_our_errors_arrive_without_what_caused_them(sent, kind):
    with pytest.raises(kind) as caught:
        sendable_errors(fail)(kind)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert caught.traceback[-1].name == "fail"
    for found in (sent(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert type(found) is kind
        assert str(found) == "a.tif cannot be read"


def test_what_it_is_for(sent):
    with pytest.raises(InputError) as caught:
        fail(InputError)
    assert type(sent(caught.value)) is Exception


def test_results_and_other_errors_pass(sent):
    assert sendable_errors(divmod)(7, 2) == (3, 1)
    with pytest.raises(KeyError) as caught:
        sendable_errors(fail)(KeyError)
    assert isinstance(caught.value.__cause__, RasterioIOError)
