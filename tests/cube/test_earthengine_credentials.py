import json
import logging
import pickle
import types

import ee
import google.auth.transport.requests
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from loopback import Answer, LoopbackServer

from cube.cog import Patience
from cube.earthengine import HIGH_VOLUME, Access
from cube.earthengine.credentials import Account, Anonymous, find_credentials, identity
from cube.earthengine.errors import PassingError
from cube.earthengine.transport import Request, Transport
from cube.errors import InputError, WorkFailedError

TOKEN = "ya29.a-token-that-nobody-may-see"
REFRESH = "1//a-refresh-token-that-nobody-may-see"
URL = f"{HIGH_VOLUME}/v1/projects/my-project/value:compute"


@pytest.fixture(scope="module")
def private_key():
    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@pytest.fixture
def key(private_key):
    return {
        "type": "service_account",
        "project_id": "project-of-the-key",
        "private_key_id": "abc",
        "private_key": private_key,
        "client_email": "forest@project-of-the-key.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """A machine on which nobody ever logged in."""
    for name in (
        "EARTHENGINE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "EARTHENGINE_PROJECT",
        "GOOGLE_CLOUD_PROJECT",
        "GCLOUD_PROJECT",
        "GOOGLE_CLOUD_QUOTA_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("google.auth._cloud_sdk.get_project_id", lambda: None)


@pytest.fixture
def token_server(monkeypatch):
    """Answers what Google's library asks of token servers; `answers` may be changed."""
    found = types.SimpleNamespace(
        asked=[], status=200, content={"access_token": TOKEN, "expires_in": 3600}
    )

    def answer(self, url, method="GET", body=None, headers=None, **others):
        if not url.endswith("/token"):  # the library looks where an account may work, and need not
            return types.SimpleNamespace(status=404, headers={}, data=b"{}")
        found.asked.append(url)
        content = json.dumps(found.content).encode()
        return types.SimpleNamespace(status=found.status, headers={}, data=content)

    monkeypatch.setattr(google.auth.transport.requests.Request, "__call__", answer)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return found


def log_in(home, **changes):
    """Do what `earthengine authenticate` does."""
    folder = home / ".config" / "earthengine"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"refresh_token": REFRESH, "project": "project-of-the-user"} | changes
    (folder / "credentials").write_text(json.dumps(content))


def log_in_to_gcloud(home, **changes):
    """Do what `gcloud auth application-default login` does."""
    folder = home / "gcloud"
    folder.mkdir(exist_ok=True)
    content = {
        "type": "authorized_user",
        "client_id": "an-id.apps.googleusercontent.com",
        "client_secret": "a-client-secret",
        "refresh_token": REFRESH,
        "quota_project_id": "project-of-gcloud",
    } | changes
    (folder / "application_default_credentials.json").write_text(json.dumps(content))


def told(error):
    """The text of an error, which shows no secret and has two lines."""
    text = str(error.value)
    assert text.count("\n") == 1
    for secret in (TOKEN, REFRESH, "PRIVATE KEY", "MII"):
        assert secret not in text
    assert error.value.__cause__ is None
    return text


# where they are looked for


def test_without_any_it_is_said_how_to_get_them():
    with pytest.raises(InputError) as error:
        identity(Access(project="my-project"))
    assert told(error) == (
        "no credentials for Earth Engine were found on this machine, or they cannot be read\n"
        "run `earthengine authenticate`; where nobody can log in, set "
        "EARTHENGINE_SERVICE_ACCOUNT_KEY to the JSON of a service account's key, or "
        "GOOGLE_APPLICATION_CREDENTIALS to its file"
    )


def test_the_order_in_which_they_are_looked_for(tmp_path, monkeypatch, key):
    log_in_to_gcloud(tmp_path)
    assert identity(Access()).project == "project-of-gcloud"
    log_in(tmp_path)
    assert identity(Access()).project == "project-of-the-user"
    (tmp_path / "key.json").write_text(json.dumps(key | {"project_id": "project-of-the-file"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert identity(Access()).project == "project-of-the-file"
    monkeypatch.setenv("EARTHENGINE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    assert identity(Access()).project == "project-of-the-key"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project-of-the-cloud")
    assert identity(Access()).project == "project-of-the-cloud"
    monkeypatch.setenv("EARTHENGINE_PROJECT", "project-of-this-shell")
    assert identity(Access()).project == "project-of-this-shell"
    assert identity(Access(project="project-of-the-recipe")).project == "project-of-the-recipe"


def test_a_project_that_was_set_alone_goes_with_the_default(tmp_path):
    log_in_to_gcloud(tmp_path)
    log_in(tmp_path, refresh_token=None)
    assert identity(Access()).project == "project-of-the-user"


def test_a_file_for_the_default_credentials_is_taken(tmp_path, monkeypatch):
    log_in_to_gcloud(tmp_path)
    path = tmp_path / "gcloud" / "application_default_credentials.json"
    path = path.rename(tmp_path / "elsewhere.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert find_credentials({"GOOGLE_APPLICATION_CREDENTIALS": str(path)}).project == (
        "project-of-gcloud"
    )


def test_without_a_project_it_is_said_where_to_set_one(tmp_path):
    log_in(tmp_path, project=None)
    with pytest.raises(InputError) as error:
        identity(Access())
    assert told(error) == (
        "Earth Engine needs a Google Cloud project, and neither the recipe nor the credentials "
        "name one\nset source.project in the recipe, or EARTHENGINE_PROJECT, or run "
        "`earthengine set_project`"
    )


@pytest.mark.parametrize("project", ["", "My Project", "../other", "a", "x" * 40, "abc/../defghi"])
def test_a_project_that_cannot_be_is_refused(tmp_path, monkeypatch, project):
    with pytest.raises(InputError, match=r"^project '.*' is no id of a Google Cloud project"):
        Access(project=project)
    log_in(tmp_path, project=project or "A")
    with pytest.raises(InputError, match=r"^project of the credentials of .* is no id"):
        identity(Access())
    monkeypatch.setenv("EARTHENGINE_PROJECT", project or "A")
    with pytest.raises(InputError, match=r"^EARTHENGINE_PROJECT '.*' is no id"):
        identity(Access())


@pytest.mark.parametrize("project", ["my-project-123", "example.com:my-project", "123456789012"])
def test_projects_have_ids_or_numbers(project):
    assert Access(project=project).project == project


# what may be wrong with them

BROKEN_KEYS = {
    "no JSON": (lambda key: "-----BEGIN PRIVATE KEY-----MIIabc", "is no JSON object\ngive the"),
    "a list": (lambda key: json.dumps([key]), "is no JSON object\ngive the JSON"),
    "a user": (
        lambda key: json.dumps({"type": "authorized_user", "refresh_token": REFRESH}),
        "is of type 'authorized_user', not 'service_account'\ncreate a key",
    ),
    "a damaged key": (
        lambda key: json.dumps(key | {"private_key": "-----BEGIN PRIVATE KEY-----\nMIIx"}),
        "is incomplete or damaged\nuse the JSON",
    ),
    "no key": (
        lambda key: json.dumps({k: v for k, v in key.items() if k != "private_key"}),
        "is incomplete or damaged\nuse the JSON",
    ),
    "no address": (
        lambda key: json.dumps({k: v for k, v in key.items() if k != "client_email"}),
        "is incomplete or damaged\nuse the JSON",
    ),
    "another token server": (
        lambda key: json.dumps(key | {"token_uri": "https://oauth2.googleapis.com.evil.org/"}),
        "has a token_uri that is not https under googleapis.com\nuse the key",
    ),
}


@pytest.mark.parametrize("way", BROKEN_KEYS)
def test_a_broken_key_is_told_without_showing_it(monkeypatch, key, way):
    spoil, text = BROKEN_KEYS[way]
    monkeypatch.setenv("EARTHENGINE_SERVICE_ACCOUNT_KEY", spoil(key))
    with pytest.raises(InputError, match="EARTHENGINE_SERVICE_ACCOUNT_KEY") as error:
        identity(Access(project="my-project"))
    assert text in told(error)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{", b"[1]"])
def test_a_broken_file_is_told(tmp_path, monkeypatch, content):
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(InputError, match="GOOGLE_APPLICATION_CREDENTIALS names") as error:
        identity(Access(project="my-project"))
    assert "cannot be read" in told(error) or "is no JSON object" in told(error)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_broken_login_is_told(tmp_path, content):
    log_in(tmp_path)
    (tmp_path / ".config" / "earthengine" / "credentials").write_text(content)
    with pytest.raises(InputError) as error:
        identity(Access(project="my-project"))
    assert told(error) == (
        "what `earthengine authenticate` has stored is damaged\n"
        "run `earthengine authenticate --force`"
    )


def test_an_expired_login_is_told(tmp_path, token_server):
    log_in(tmp_path)
    token_server.status = 400
    token_server.content = {
        "error": "invalid_grant",
        "error_description": f"Token {REFRESH} has been expired or revoked.",
    }
    with pytest.raises(InputError) as error:
        identity(Access()).headers(URL)
    assert told(error) == (
        "the credentials of `earthengine authenticate` are no longer accepted (invalid_grant)\n"
        "run `earthengine authenticate --force`"
    )


def test_a_key_that_was_deleted_is_told(monkeypatch, key, token_server):
    monkeypatch.setenv("EARTHENGINE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    token_server.status = 400
    token_server.content = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    with pytest.raises(InputError) as error:
        identity(Access()).headers(URL)
    assert told(error) == (
        "the credentials of the service account (the key in EARTHENGINE_SERVICE_ACCOUNT_KEY) are "
        "no longer accepted (invalid_grant)\n"
        "create another key for it in the Google Cloud console, and check this machine's clock"
    )


def test_a_token_server_in_trouble_is_asked_again(tmp_path, token_server, monkeypatch):
    log_in(tmp_path)
    token_server.status = 503
    token_server.content = {"error": "internal_failure"}
    with pytest.raises(PassingError, match="no token: Google's token server does not answer"):
        identity(Access()).headers(URL)

    def lost(self, *args, **kwargs):
        raise google.auth.exceptions.TransportError(f"https://oauth2/{REFRESH}")

    monkeypatch.setattr(google.auth.transport.requests.Request, "__call__", lost)
    with pytest.raises(PassingError, match="no token: Google's token server does not answer"):
        identity(Access()).headers(URL)


# where they go, and where not


def test_a_token_is_fetched_once_and_named(tmp_path, token_server):
    log_in(tmp_path)
    account = identity(Access())
    for _ in range(3):
        headers = {name.lower(): value for name, value in account.headers(URL).items()}
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert "x-goog-user-project" not in headers  # the session names its own
    assert token_server.asked == ["https://oauth2.googleapis.com/token"]
    account.headers(URL, is_denied=True)
    assert len(token_server.asked) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://earthengine.googleapis.com/v1",
        "http://127.0.0.1:8000/v1",
        "https://127.0.0.1/v1",
        "https://earthengine.googleapis.com@evil.org/v1",
        "https://earthengine.googleapis.com.evil.org/v1",
    ],
)
def test_a_token_goes_nowhere_else(tmp_path, token_server, url):
    log_in(tmp_path)
    with pytest.raises(InputError, match=r"sent to https under googleapis\.com only"):
        identity(Access()).headers(url)
    assert not token_server.asked


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "earthengine.googleapis.com",
        "http://earthengine.googleapis.com",
        "https://googleapis.com",
        "https://evilgoogleapis.com",
        "https://earthengine.googleapis.com.evil.org",
        "https://earthengine.googleapis.com:8443",
        "https://earthengine.googleapis.com:x",
        "https://earthengine.googleapis.com/v1",
        "https://earthengine.googleapis.com/",
        "https://earthengine.googleapis.com?a=b",
        "https://earthengine.googleapis.com#a",
        "https://evil.org/.googleapis.com",
        "https://evil.org?.googleapis.com",
        "https://evil.org#.googleapis.com",
        "https://evil.org\\.googleapis.com",
        "https://evil.org\n.googleapis.com",
        "https://name:word@earthengine.googleapis.com",
        "https://earthengine.googleapis.com@evil.org",
        "https://еarthengine.googleapis.com",
        "http://name@127.0.0.1:8000",
        "http://127.0.0.1:8000/path",
        "http://127.0.0.1.evil.org",
        "http://10.0.0.1",
        "http://[::2]",
        "http://[::1",
        "file:///etc",
    ],
)
def test_other_endpoints_are_refused(endpoint):
    with pytest.raises(
        InputError, match="is none that credentials may be sent to; expected"
    ) as error:
        Access(endpoint=endpoint)
    assert "word" not in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "is_local"),
    [
        (HIGH_VOLUME, False),
        ("https://earthengine.googleapis.com", False),
        ("https://earthengine.googleapis.com:443", False),
        ("http://127.0.0.1:8000", True),
        ("http://localhost:8000", True),
        ("http://[::1]:8000", True),
    ],
)
def test_endpoints_are_googles_or_of_this_machine(endpoint, is_local):
    assert Access(endpoint=endpoint).is_local == is_local


def test_a_server_on_this_machine_gets_no_credentials(monkeypatch, key, tmp_path):
    monkeypatch.setenv("EARTHENGINE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    log_in(tmp_path)
    with LoopbackServer(lambda asked: Answer.of_json({})) as server:
        access = Access(endpoint=server.url)
        nobody = identity(access)
        assert isinstance(nobody, Anonymous)
        Transport(access, nobody).ask(request())
        (line,) = server.requests
        assert "authorization" not in line.headers


@pytest.mark.parametrize("number", [0, -1])
def test_at_least_one_request_at_once(number):
    with pytest.raises(InputError, match=rf"requests_at_once is {number}; expected 1 or more"):
        Access(requests_at_once=number)


def test_nothing_secret_is_shown_logged_or_sent(monkeypatch, key, tmp_path, token_server, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("EARTHENGINE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    account = identity(Access())
    account.headers(URL)
    found = find_credentials({"EARTHENGINE_SERVICE_ACCOUNT_KEY": json.dumps(key)})
    shown = f"{account!r} {found!r} {found} {caplog.text}"
    for secret in (TOKEN, "PRIVATE KEY", key["private_key"][100:140]):
        assert secret not in shown
    for thing in (account, found):
        with pytest.raises(TypeError, match="credentials are not sent to other processes"):
            pickle.dumps(thing)
    travelled = pickle.dumps(Access(project="my-project"))
    assert pickle.loads(travelled) == Access(project="my-project")
    assert len(travelled) < 500


def test_a_key_in_the_variable_of_its_file_is_not_shown(key):
    for text in (json.dumps(key), json.dumps(key, indent=1), key["private_key"]):
        with pytest.raises(InputError, match="holds a key, and is to name its file") as told:
            find_credentials({"GOOGLE_APPLICATION_CREDENTIALS": text})
        assert key["private_key"][100:140] not in str(told.value)
        assert "PRIVATE" not in str(told.value)


# a token that is refused


class Renewing:
    """In the name of one whose first token has run out."""

    project = "my-project"
    is_renewable = True

    def __init__(self, *tokens):
        self.tokens = list(tokens)

    def headers(self, url, *, is_denied=False):
        if is_denied and len(self.tokens) > 1:
            del self.tokens[0]
        return {"Authorization": self.tokens[0]}

    def refused(self, reason):
        return InputError(f"refused: {reason}")


def request():
    return Request(
        method="GET", path="/v1/x", headers={}, body=None, what="it", check=lambda body: None
    )


def guarded(asked):
    is_known = asked.headers.get("authorization") == "new"
    return Answer.of_json({}, 200 if is_known else 401)


def test_a_token_that_ran_out_is_renewed_once():
    patience = Patience(attempts=2, first_pause=0.0)
    with LoopbackServer(guarded) as server:
        access = Access(endpoint=server.url, patience=patience)
        assert Transport(access, Renewing("old", "new")).ask(request()).status == 200
        assert [line.status for line in server.requests] == [401, 200]
        with pytest.raises(InputError, match="refused: HTTP 401"):
            Transport(access, Renewing("old", "older")).ask(request())
        assert len(server.requests) == 4


def test_a_token_that_cannot_be_had_ends_in_an_error(tmp_path, token_server):
    log_in(tmp_path)
    token_server.status = 503
    account = identity(Access())
    assert isinstance(account, Account)
    patience = Patience(attempts=3, first_pause=0.0)
    with pytest.raises(WorkFailedError, match="tried 3 times, the last time no token: Google's"):
        Transport(Access(patience=patience), account).ask(request())


def test_the_scopes_are_those_of_the_client(key):
    found = find_credentials({"EARTHENGINE_SERVICE_ACCOUNT_KEY": json.dumps(key)})
    assert found.credentials.scopes == ee.oauth.SCOPES
