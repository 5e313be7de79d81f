"""Address of a catalogue in, what is known of its provider out: pace, page size, access."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from cube.errors import InputError

AccessKind: TypeAlias = Literal["none", "planetary-computer", "s3", "s3-cdse", "earthdata"]
"""How files are opened: see `cube.stac.access`."""

ACCESS_KINDS: tuple[AccessKind, ...] = get_args(AccessKind)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One STAC API and how to treat it."""

    name: str
    """Short name, as a recipe may give it instead of the address."""
    address: str
    """Root of the API."""
    prefixes: tuple[str, ...]
    """Its addresses begin with one of these: host and path, without scheme, ending in a slash."""
    requests_per_second: float
    """Most requests a search sends; none of these providers states a figure for its API, so all
    are chosen, low enough for a shared service."""
    page: int
    """Items asked for at once; an API may give fewer."""
    access: AccessKind
    """How its files are opened."""


PROVIDERS: tuple[Provider, ...] = (
    Provider(
        name="earth-search",
        address="https://earth-search.aws.element84.com/v1",
        prefixes=("earth-search.aws.element84.com/",),
        requests_per_second=5.0,
        page=250,  # larger pages end in its gateway's limit of 6 MB
        access="none",
    ),
    Provider(
        name="planetary-computer",
        address="https://planetarycomputer.microsoft.com/api/stac/v1",
        prefixes=("planetarycomputer.microsoft.com/api/stac/",),
        requests_per_second=5.0,
        page=250,
        access="planetary-computer",
    ),
    Provider(
        name="cdse",
        address="https://stac.dataspace.copernicus.eu/v1",
        prefixes=("stac.dataspace.copernicus.eu/", "catalogue.dataspace.copernicus.eu/stac/"),
        requests_per_second=2.0,
        page=100,
        access="s3-cdse",
    ),
    Provider(
        name="usgs",
        address="https://landsatlook.usgs.gov/stac-server",
        prefixes=("landsatlook.usgs.gov/stac-server/",),
        requests_per_second=2.0,
        page=100,
        access="none",
    ),
    Provider(
        name="lpcloud",
        address="https://cmr.earthdata.nasa.gov/stac/LPCLOUD",
        prefixes=(
            "cmr.earthdata.nasa.gov/stac/LPCLOUD/",
            "cmr.earthdata.nasa.gov/cloudstac/LPCLOUD/",
        ),
        requests_per_second=2.0,
        page=100,
        access="earthdata",
    ),
)
"""Providers with a name."""

_NEUTRAL = Provider(
    name="",
    address="",
    prefixes=(),
    requests_per_second=10.0,
    page=250,
    access="none",
)


def provider_of(catalogue: str) -> Provider:
    """Return the provider whose API lies at `catalogue`; for any other one with an empty name."""
    parts = urlsplit(catalogue)
    place = f"{(parts.hostname or '')}{parts.path.rstrip('/')}/"
    for provider in PROVIDERS:
        if any(place.startswith(prefix) for prefix in provider.prefixes):
            return provider
    return _NEUTRAL


def catalogue_address(name: str) -> str:
    """Return the address that a provider's short name stands for; anything else stays as it is.

    Raises `InputError` for a bare word that is no known name and no file.
    """
    known = {provider.name: provider.address for provider in PROVIDERS}
    if name in known:
        return known[name]
    is_word = not set(name) & set("/\\.:")
    if is_word and not (name and Path(name).exists()):
        raise InputError(
            f"catalogue {name!r} is unknown; expected an address, a file, or one of "
            f"{', '.join(known)}"
        )
    return name
