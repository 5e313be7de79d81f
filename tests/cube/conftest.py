"""Fixtures of several test files: how an error travels from a Dask worker."""

import copyreg

import pytest
from distributed.core import clean_exception, error_message
from distributed.protocol import Serialize


@pytest.fixture
def sent():
    """Return what arrives of an error that a Dask worker sends back.

    Dask teaches pickle about every type of error it meets; that is forgotten afterwards.
    """
    before = copyreg.dispatch_table.copy()

    def send(error):
        message = error_message(error)
        plain = {k: v.data if isinstance(v, Serialize) else v for k, v in message.items()}
        return clean_exception(**plain)[1]

    yield send
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)
