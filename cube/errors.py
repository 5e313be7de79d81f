"""The two ways a user's run can go wrong: what was given is wrong, or the work failed."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class InputError(ValueError):
    """Something the user gave (recipe, file, labels, store) cannot be used; exit code 2.

    The text says what was asked, what was found and what to do, in one or two lines.
    """


class SceneLostError(InputError):
    """A file of one scene is broken for good; the others may still be used."""

    scene: str = ""
    """Id of the scene."""


class WorkFailedError(RuntimeError):
    """The inputs were right but the work failed or is incomplete; exit code 1."""


class PlaceError(OSError):
    """The server of an object store did not do what it was asked; another try may help."""


class PlaceRefusedError(PlaceError):
    """An object store refused: a bucket that does not exist, or credentials it does not take."""


def sendable_errors(read: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let the errors above leave `read` without what caused them, which their text has told.

    Dask sends an error back together with its causes, and GDAL's do not unpickle
    (`CPLE_BaseError` takes arguments it does not keep): the whole then arrives as a bare
    `Exception`, and wrong input looks like a bug. For whatever runs on a worker and reads files.
    """

    @wraps(read)
    def reading(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return read(*args, **kwargs)
        except (InputError, WorkFailedError) as error:
            error.__cause__ = error.__context__ = None
            raise

    return reading
