"""Names in, `Band` out: the Sentinel-2 L2A layers a cube can hold and what others call them."""

from dataclasses import dataclass

from cube.errors import InputError

NODATA = -32768
"""The stored value that means "nothing clear was seen here"."""

SCALE = 1e-4
"""Physical value of one stored unit, for every band (see `Band.stored_per_count`)."""

STORED_MAX = 32767
"""The largest stored value; anything brighter (reflectance above 3.2767) is clipped to it."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One Sentinel-2 L2A layer, as ESA's product specification (PSD 15) describes it."""

    name: str
    """Canonical name with two digits, e.g. `B02`, `B8A`, `AOT`."""
    resolution: int
    """Native pixel size in metres: 10, 20 or 60."""
    earth_search: str
    """Asset key on Earth Search v1."""
    stored_per_count: int = 1
    """Stored units (1e-4) in one product count. Reflectance has 1e-4 a count, so 1; AOT has
    1e-3, so 10; WVP has 1e-3 cm = 1e-4 dm, so 1 with decimetres as the cube's unit."""
    unit: str = "1"
    """Unit of the scaled value: reflectance and optical depth `1`, water vapour `dm`."""
    has_offset: bool = True
    """Whether products of baseline 04.00 and later add 1000 counts to this layer."""


_REFLECTANCE = (
    Band(name="B01", resolution=60, earth_search="coastal"),
    Band(name="B02", resolution=10, earth_search="blue"),
    Band(name="B03", resolution=10, earth_search="green"),
    Band(name="B04", resolution=10, earth_search="red"),
    Band(name="B05", resolution=20, earth_search="rededge1"),
    Band(name="B06", resolution=20, earth_search="rededge2"),
    Band(name="B07", resolution=20, earth_search="rededge3"),
    Band(name="B08", resolution=10, earth_search="nir"),
    Band(name="B8A", resolution=20, earth_search="nir08"),
    Band(name="B09", resolution=60, earth_search="nir09"),
    Band(name="B11", resolution=20, earth_search="swir16"),
    Band(name="B12", resolution=20, earth_search="swir22"),
)
_ATMOSPHERE = (
    Band(name="AOT", resolution=20, earth_search="aot", stored_per_count=10, has_offset=False),
    Band(name="WVP", resolution=20, earth_search="wvp", unit="dm", has_offset=False),
)

BANDS: dict[str, Band] = {band.name: band for band in (*_REFLECTANCE, *_ATMOSPHERE)}
"""Every layer a cube can hold, by canonical name, in the order of wavelength."""

REFLECTANCE_BANDS: tuple[str, ...] = tuple(band.name for band in _REFLECTANCE)
"""The twelve reflectance bands of an L2A product (B10 is not in it)."""

_BY_ALIAS = (
    {band.name.lower(): band.name for band in BANDS.values()}
    | {band.name.replace("B0", "B").lower(): band.name for band in BANDS.values()}
    | {band.earth_search: band.name for band in BANDS.values()}
)


def canonical_band(name: str) -> str:
    """Return the canonical name of a band called `name` anywhere (`B2`, `b02`, `blue`).

    Raises `InputError` for a name that is no Sentinel-2 L2A layer.
    """
    try:
        return _BY_ALIAS[name.lower()]
    except KeyError:
        known = ", ".join(BANDS)
        raise InputError(f"{name!r} is no Sentinel-2 L2A band; known are {known}") from None
