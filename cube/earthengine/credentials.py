"""The environment and the user's files in, headers that prove who asks out; nothing else leaves.

Looked for in this order: a service account's key in EARTHENGINE_SERVICE_ACCOUNT_KEY (its JSON text),
the file that GOOGLE_APPLICATION_CREDENTIALS names, what `earthengine authenticate` has stored,
Google's application default credentials. Each process reads its own: they are never sent to one.
"""

import json
import os
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from cube.earthengine.access import Access, check_project, is_google
from cube.earthengine.errors import PassingError
from cube.earthengine.installed import ee, google
from cube.errors import InputError

KEY_VARIABLE = "EARTHENGINE_SERVICE_ACCOUNT_KEY"
FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
PROJECT_VARIABLES = ("EARTHENGINE_PROJECT", "GOOGLE_CLOUD_PROJECT")

_ServiceAccount: Any = google.oauth2.service_account.Credentials
_User: Any = google.oauth2.credentials.Credentials

_AUTHENTICATE = "run `earthengine authenticate`"
_NEW_LOGIN = "run `earthengine authenticate --force`"
_NEW_DEFAULT = "run `gcloud auth application-default login`"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Credentials and where they came from."""

    credentials: Any = field(repr=False)
    """Google's object; it holds secrets."""
    origin: str
    """Where they were found, for messages."""
    remedy: str
    """What to do where they are refused."""
    project: str | None
    """Project they name, if they do."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not sent to other processes; each reads its own")


@runtime_checkable
class Identity(Protocol):
    """In whose name requests are sent."""

    @property
    def project(self) -> str:
        """The project that pays."""
        ...

    @property
    def is_renewable(self) -> bool:
        """Whether another token can be fetched after a refusal."""
        ...

    def headers(self, url: str, *, is_denied: bool = False) -> dict[str, str]:
        """Return what to add to a request to `url`, for this one and kept nowhere.

        With a new token if the last one `is_denied`.
        """
        ...

    def refused(self, reason: str) -> InputError:
        """Return the error for a refusal that stays."""
        ...


def identity(access: Access) -> Identity:
    """Return in whose name requests of `access` are sent: nobody's to a server on this machine.

    Raises `InputError` in two lines, what is missing and how to get it, without any secret.
    """
    if access.is_local:
        return Anonymous(project=access.project or "project-of-nobody")
    found = find_credentials(os.environ)
    return Account(found, project=_project(access, found, os.environ))


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """Nobody, for a server on this machine."""

    project: str
    """Project of the requests."""
    is_renewable: bool = False
    """There is no token."""

    def headers(self, url: str, *, is_denied: bool = False) -> dict[str, str]:
        """Return nothing."""
        return {}

    def refused(self, reason: str) -> InputError:
        """Return the error of a server that wants credentials which it does not get."""
        return InputError(
            f"the Earth Engine server on this machine wants credentials: {reason}\n"
            "servers on this machine are asked without; use Google's own address"
        )


class Account:
    """A user or a service account; threads share its token, and one of them renews it."""

    def __init__(self, found: Found, *, project: str) -> None:
        self.project = project
        self.is_renewable = True
        self._found = found
        self._credentials = _without_quota_project(found.credentials)
        self._request = google.auth.transport.requests.Request()
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not sent to other processes; each reads its own")

    def headers(self, url: str, *, is_denied: bool = False) -> dict[str, str]:
        """Return the headers with a token; raises `InputError` for a host that is not Google's.

        Also for credentials that have expired, and `PassingError` where no token can be had now.
        """
        if not is_google(url):
            raise InputError(
                "Earth Engine's credentials are sent to https under googleapis.com only"
            )
        found: dict[str, str] = {}
        with self._lock, _told_as(self._found):
            if is_denied:
                self._credentials.refresh(self._request)
            self._credentials.before_request(self._request, "POST", url, found)
        return found

    def refused(self, reason: str) -> InputError:
        """Return the error for a token that is refused though it is new."""
        return InputError(
            f"Earth Engine does not accept {self._found.origin}: {reason}\n{self._found.remedy}"
        )


class _told_as:  # noqa: N801, reads as a statement
    """Tell what Google's library raises inside in our words, without its text: it may hold more."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, google.auth.exceptions.GoogleAuthError):
            return
        is_lost = isinstance(error, google.auth.exceptions.TransportError)
        if is_lost or error.retryable:
            raise PassingError("no token: Google's token server does not answer") from None
        raise InputError(
            f"{self._found.origin} are no longer accepted{_code(error)}\n{self._found.remedy}"
        ) from None


def _code(error: Exception) -> str:
    """Return the OAuth code of an error, such as ` (invalid_grant)`; nothing for other texts."""
    code = re.match(r"[a-z]+(_[a-z]+)+\b", str(error.args[0]) if error.args else "")
    return f" ({code[0]})" if code else ""


def find_credentials(environment: Mapping[str, str]) -> Found:
    """Return the first credentials there are; raises `InputError` if none, or if one is broken."""
    key = environment.get(KEY_VARIABLE, "").strip()
    if key:
        return _service_account(_object(key, KEY_VARIABLE), f"the key in {KEY_VARIABLE}")
    path = environment.get(FILE_VARIABLE, "").strip()
    if path:
        content = _object(_text(path), f"the file that {FILE_VARIABLE} names")
        if content.get("type") == "service_account":
            return _service_account(content, f"the key that {FILE_VARIABLE} names")
        return _default(None)
    return _stored_or_default()


def _service_account(content: dict[str, Any], origin: str) -> Found:
    if content.get("type") != "service_account":
        raise InputError(
            f"{origin} is of type {str(content.get('type'))[:40]!r}, not 'service_account'\n"
            "create a key for a service account in the Google Cloud console and give its JSON"
        )
    if not is_google(str(content.get("token_uri"))):
        raise InputError(
            f"{origin} has a token_uri that is not https under googleapis.com\n"
            "use the key as the Google Cloud console gave it"
        )
    try:
        credentials = _ServiceAccount.from_service_account_info(content, scopes=ee.oauth.SCOPES)
    except (ValueError, TypeError, AttributeError, google.auth.exceptions.GoogleAuthError):
        raise InputError(
            f"{origin} is incomplete or damaged\n"
            "use the JSON of the key as the Google Cloud console gave it"
        ) from None
    return Found(
        credentials=credentials,
        origin=f"the credentials of the service account ({origin})",
        remedy="create another key for it in the Google Cloud console, and check this machine's "
        "clock",
        project=content.get("project_id"),
    )


def _stored_or_default() -> Found:
    try:
        arguments = ee.oauth.get_credentials_arguments()
    except OSError:  # `earthengine authenticate` never ran
        return _default(None)
    except (ValueError, AttributeError):
        raise InputError(
            f"what `earthengine authenticate` has stored is damaged\n{_NEW_LOGIN}"
        ) from None
    project = arguments.get("quota_project_id")
    if not arguments.get("refresh_token"):  # `earthengine set_project` stores a project alone
        return _default(project)
    return Found(
        credentials=_User(None, **arguments),
        origin="the credentials of `earthengine authenticate`",
        remedy=_NEW_LOGIN,
        project=project,
    )


def _default(stored_project: str | None) -> Found:
    try:
        with warnings.catch_warnings():
            # it advises to set a project in a way that Earth Engine does not look at
            warnings.simplefilter("ignore")
            credentials, project = google.auth.default(scopes=ee.oauth.SCOPES)
            quota_project = getattr(credentials, "quota_project_id", None)
    except google.auth.exceptions.GoogleAuthError:
        raise InputError(
            "no credentials for Earth Engine were found on this machine, or they cannot be read\n"
            f"{_AUTHENTICATE}; where nobody can log in, set {KEY_VARIABLE} to the JSON of a service "
            f"account's key, or {FILE_VARIABLE} to its file"
        ) from None
    return Found(
        credentials=credentials,
        origin="Google's application default credentials",
        remedy=_NEW_DEFAULT,
        project=stored_project or quota_project or project,
    )


def _project(access: Access, found: Found, environment: Mapping[str, str]) -> str:
    if access.project:
        return access.project
    for name in PROJECT_VARIABLES:
        if environment.get(name, "").strip():
            return check_project(environment[name].strip(), source=name)
    if found.project and not ee.oauth.is_sdk_project(str(found.project)):
        return check_project(str(found.project), source=f"project of {found.origin}")
    raise InputError(
        "Earth Engine needs a Google Cloud project, and neither the recipe nor the credentials name "
        f"one\nset source.project in the recipe, or {PROJECT_VARIABLES[0]}, or run "
        "`earthengine set_project`"
    )


def _without_quota_project(credentials: Any) -> Any:
    """Return credentials that name no project in each request: the session names its own."""
    if getattr(credentials, "quota_project_id", None):
        return credentials.with_quota_project(None)
    return credentials


def _text(name: str) -> str:
    """Return the content of the file `name`; a name that may be a key itself is never shown."""
    if "{" in name or "\n" in name or "PRIVATE KEY" in name:
        raise InputError(
            f"{FILE_VARIABLE} holds a key, and is to name its file\nput the key into {KEY_VARIABLE}"
        )
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{FILE_VARIABLE} names {name[:200]!r}, which cannot be read: {type(error).__name__}\n"
            f"let it name the JSON file of a service account's key, or unset it and {_AUTHENTICATE}"
        ) from None


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None  # the error's text would show a piece of the key
    if not isinstance(found, dict):
        raise InputError(
            f"{source} is no JSON object\n"
            "give the JSON of a service account's key as the Google Cloud console gave it"
        )
    return found
