"""What an object store's client says went wrong in, a line that may be told out; and another try.

Answers repeat what was asked, which was signed: headers, keys and tokens are in the texts of errors.
"""

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError

from cube.errors import PlaceError, PlaceRefusedError

_TRIES = 5
"""Times that an answer may break off."""

_REFUSALS = (
    "NoSuchBucket",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "ContainerNotFound",
    "PermanentRedirect",
    "InvalidBucketName",
)
"""Codes that asking again does not change."""

_METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")
"""Whom a client asks for credentials that nobody has given it."""

_Found = TypeVar("_Found")


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Raise what went wrong as one line without what was signed, for answers repeat that."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise _error(url, str(error)) from None
        raise FileNotFoundError(f"there is no object {url!r}") from None
    except AlreadyExistsError:
        raise
    except BaseError as error:
        raise _error(url, str(error)) from None


def _error(url: str, text: str) -> PlaceError:
    """Return the error for what a client said, which may repeat headers and tokens."""
    if any(server in text for server in _METADATA_SERVERS):
        return PlaceRefusedError(
            f"{url!r} needs credentials, and there are none; set those of the provider in the "
            "environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    status = re.search(r"status code: (\d{3}[A-Za-z -]*)", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    if status or code:
        found = ", ".join(part[1].strip() for part in (status, code) if part)
        is_refusal = bool(status and status[1].startswith(("401", "403")))
        is_refusal = (is_refusal and not code) or bool(code and code[1] in _REFUSALS)
        kind = PlaceRefusedError if is_refusal else PlaceError
        return kind(f"the server of {url!r} answers {found}{_advice(code[1] if code else '')}")
    first = re.sub(r"\?\S+", "?…", text.partition("\n")[0])
    if "body error" in first or "decod" in first:
        return BrokenOffError(f"the server of {url!r} breaks off its answers")
    if "error sending request" in first or "HTTP error" in first:
        return PlaceError(f"the server of {url!r} does not answer")
    return PlaceRefusedError(f"{url!r} cannot be used: {first[:200]}")


def _advice(code: str) -> str:
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return "; make the bucket, or name another"
    if code in _REFUSALS:
        return "; look at the credentials in the environment and at what they allow"
    return ""


class BrokenOffError(PlaceError):
    """An answer that began and did not end, which the client does not ask for again."""


async def asked(url: str, ask: Callable[[], Awaitable[_Found]]) -> _Found:
    """Return what `ask` gives; again where an answer breaks off."""
    for tries in itertools.count(1):
        try:
            with told(url):
                return await ask()
        except BrokenOffError:
            if tries == _TRIES:
                raise
        await asyncio.sleep(random.uniform(0, 0.2 * 2**tries))
    raise AssertionError  # the count has no end
