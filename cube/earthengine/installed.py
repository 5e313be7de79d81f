"""The optional client library of Earth Engine, or an error that says what to install."""

from cube.errors import InputError

try:
    import ee
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests
    import google.oauth2.credentials
    import google.oauth2.service_account
    import httplib2
except ImportError as error:
    raise InputError(
        "source.kind = 'earthengine' needs Earth Engine's client library, which is not installed\n"
        'run `pip install "canopycube[earthengine]"`'
    ) from error

__all__ = ["ee", "google", "httplib2"]
