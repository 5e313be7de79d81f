"""An answer of Earth Engine in; nothing, or the error that says whether asking again may help, out."""

import json
import time
from collections.abc import Mapping
from typing import NoReturn

from cube.cog.http import retry_after
from cube.errors import InputError, WorkFailedError

_LONGEST_MESSAGE = 300

_PASSING_STATUSES = {408, 425, 429, *range(500, 600)}

_TOO_LARGE = (
    "user memory limit exceeded",
    "computation timed out",
    "total request size",
    "pixel grid dimensions",
    "output of image computation is too large",
)
"""Parts of messages after which a smaller window may succeed, in lower case. Seen in
https://developers.google.com/earth-engine/guides/debugging and in answers of computePixels."""

_CROWDED = (
    "too many concurrent",
    "too many requests",
    "quota exceeded",
    "capacity exceeded",
    "ratelimitexceeded",
    "rate limit exceeded",
)
"""Parts of messages that ask for fewer requests at once, whatever their status."""

_PASSING = ("internal error has occurred", "deadline exceeded", "currently unavailable")
"""Parts of messages of a server in trouble, whatever their status."""


class PassingError(Exception):
    """An answer that the next try may mend."""

    def __init__(self, reason: str, *, wait: float = 0.0, is_crowded: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        """Seconds the server asks to wait."""
        self.is_crowded = is_crowded
        """Whether fewer requests at once are asked for."""


class RequestTooLargeError(Exception):
    """A request that a smaller window would mend."""


class NotFoundError(InputError):
    """Something that Earth Engine does not have, or does not show to this account."""


class DeniedError(Exception):
    """A token that Earth Engine does not accept (any longer)."""


def check_status(
    status: int, headers: Mapping[str, str], body: bytes, *, what: str, project: str
) -> None:
    """Return for an answer that is content; raise what another status means.

    `what` was asked in the name of `project`; `headers` are by name in lower case. Raises
    `PassingError`, `RequestTooLargeError`, `DeniedError` (401), `InputError` for what the user has
    to change (`NotFoundError` for what is not there), `WorkFailedError` for the rest, both with Earth
    Engine's own message in one line.
    """
    if 200 <= status < 300:
        return
    message, kinds = _told(body)
    said = f"{message} {kinds}".lower()
    reason = f"HTTP {status}" + (f" ({message})" if message else "")
    if status < 500 and any(part in said for part in _TOO_LARGE):
        raise RequestTooLargeError(message)
    is_crowded = status == 429 or (status in (400, 403) and any(one in said for one in _CROWDED))
    if is_crowded or status in _PASSING_STATUSES or any(part in said for part in _PASSING):
        wait = retry_after(headers.get("retry-after", ""), now=time.time())
        raise PassingError(reason, wait=wait, is_crowded=is_crowded)
    if status == 401:
        raise DeniedError(reason)
    _refuse(status, reason, what=what, project=project)


def _refuse(status: int, reason: str, *, what: str, project: str) -> NoReturn:
    """Raise what a refusal means that no further try will change."""
    if status == 403:
        raise InputError(
            f"Earth Engine refuses {what} for project {project!r}: {reason}\n"
            "register the project for Earth Engine and let your account use it "
            "(https://developers.google.com/earth-engine/guides/access), or name another one in "
            "the recipe or in EARTHENGINE_PROJECT"
        )
    if status == 404 or "does not exist or caller does not have access" in reason:
        raise NotFoundError(
            f"Earth Engine does not find what {what} needs: {reason}\n"
            f"check its name, and whether project {project!r} and your account may read it"
        )
    raise WorkFailedError(f"Earth Engine cannot answer {what}: {reason}")


def _told(body: bytes) -> tuple[str, str]:
    """Return the message of an answer in one line, and the words of its status and reasons."""
    try:
        error = json.loads(body)["error"]
        message, kinds = error.get("message", ""), [error.get("status", "")]
        kinds += [one.get("reason", "") for one in error.get("errors", [])]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""  # a page of a gateway, or nothing
    return one_line(str(message)), " ".join(map(str, kinds))


def one_line(text: str) -> str:
    """Return a foreign text as one line that can be shown."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"
