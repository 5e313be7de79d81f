"""Day of year and leaf traits in, band reflectance of a canopy out (PROSPECT-D and 4SAIL).

Six pure canopies are tabulated once per process: every eight days of the year, with the response
of log reflectance to each trait up to second order. What a forest looks like on a date is then
arithmetic on small tables.
"""

import datetime
import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cube.forest.noise import sigmoid
from cube.forest.sensor import PLATFORMS, Platform, band_centres, band_weights
from cube.forest.sun import sun_position


@dataclass(frozen=True, kw_only=True)
class Canopy:
    """Mean traits and calendar of one pure canopy.

    Ranges of leaf traits as in the LOPEX and ANGERS collections (Feret et al. 2008, 2017), leaf
    area as in Asner, Scurlock & Hicke (2003); days of the year as deciduous forests at 1,500 m in
    the Qinling have them (leaves from late April, yellow in October).
    """

    name: str
    leaf_area: tuple[float, float]
    """Leaf area index (winter, summer) in m2/m2; in winter the brown twigs count."""
    chlorophyll: float
    """Leaf chlorophyll at its height, ug/cm2."""
    water: float
    """Equivalent leaf water, cm."""
    dry_matter: float
    """Leaf dry matter, g/cm2."""
    layers: float
    """PROSPECT's structure parameter N."""
    leaf_angle: float
    """Mean leaf angle from the horizontal, degrees."""
    shade: float
    """Share of the pixel in the shade of crowns, which one-dimensional 4SAIL does not know."""
    soil: float
    """Brightness of the ground under the canopy, 1 is the dry mineral soil of the model."""
    green_up: float
    """Day of the year at which half the leaves are out."""
    yellowing: float
    """Day at which half the chlorophyll is gone."""
    leaf_fall: float
    """Day at which half the leaves are down."""
    evergreen: bool


CANOPIES: tuple[Canopy, ...] = (
    Canopy(
        name="larch_JP",
        leaf_area=(0.8, 4.2),
        chlorophyll=44.0,
        water=0.012,
        dry_matter=0.0085,
        layers=1.6,
        leaf_angle=60.0,
        shade=0.30,
        soil=0.50,
        green_up=113.0,
        yellowing=293.0,
        leaf_fall=311.0,
        evergreen=False,
    ),
    Canopy(
        name="deci_broad",
        leaf_area=(0.7, 4.8),
        chlorophyll=43.0,
        water=0.0105,
        dry_matter=0.0065,
        layers=1.75,
        leaf_angle=47.0,
        shade=0.20,
        soil=0.55,
        green_up=107.0,
        yellowing=286.0,
        leaf_fall=304.0,
        evergreen=False,
    ),
    Canopy(
        name="ever_coni",
        leaf_area=(3.1, 3.8),
        chlorophyll=48.0,
        water=0.019,
        dry_matter=0.018,
        layers=1.7,
        leaf_angle=60.0,
        shade=0.42,
        soil=0.45,
        green_up=125.0,
        yellowing=305.0,
        leaf_fall=320.0,
        evergreen=True,
    ),
    Canopy(
        name="larch_CN",
        leaf_area=(0.6, 3.3),
        chlorophyll=41.0,
        water=0.012,
        dry_matter=0.009,
        layers=1.6,
        leaf_angle=61.0,
        shade=0.32,
        soil=0.55,
        green_up=121.0,
        yellowing=281.0,
        leaf_fall=299.0,
        evergreen=False,
    ),
    Canopy(
        name="shrubland",
        leaf_area=(0.45, 2.2),
        chlorophyll=38.0,
        water=0.010,
        dry_matter=0.0075,
        layers=1.7,
        leaf_angle=50.0,
        shade=0.12,
        soil=0.70,
        green_up=114.0,
        yellowing=283.0,
        leaf_fall=303.0,
        evergreen=False,
    ),
    Canopy(
        name="ever_broad",
        leaf_area=(3.6, 4.4),
        chlorophyll=52.0,
        water=0.0135,
        dry_matter=0.012,
        layers=1.9,
        leaf_angle=48.0,
        shade=0.26,
        soil=0.45,
        green_up=122.0,
        yellowing=310.0,
        leaf_fall=325.0,
        evergreen=True,
    ),
)
"""The pure canopies; `mix_coni_broad` is made of two of them."""

TRAITS = ("leaf_area", "chlorophyll", "water", "dry_matter", "brown", "soil")
"""What may deviate from the mean canopy: log of the ratio, but for `brown` an added amount."""

_STEP = np.array([0.35, 0.30, 0.30, 0.30, 0.10, 0.25])
"""Deviation at which the response to each trait is taken."""

_NODE_DAYS = np.arange(0, 365, 8, dtype=np.float64)
_SHADE_LEFT = (0.25, 0.45)
"""What the shade of crowns leaves of the light in the visible and beyond 700 nm, where leaves
scatter it on."""


def leaf_area(canopy: Canopy, day: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Return leaf area index on days of the year (logistic green-up and leaf fall)."""
    winter, summer = canopy.leaf_area
    out = sigmoid((day - canopy.green_up) / 6) * sigmoid((canopy.leaf_fall - day) / 5)
    return np.asarray(winter + (summer - winter) * out)


def _prosail(
    canopy: Canopy, day: float, deviation: Float64[np.ndarray, "trait"]
) -> Float64[np.ndarray, "nanometre"]:
    """Return the reflectance at 400..2500 nm of one canopy, traits off their mean by `deviation`."""
    import prosail  # compiles for seconds when imported; only a forest that is simulated needs it

    turns = np.array([canopy.green_up, canopy.yellowing, canopy.leaf_fall])
    out, yellow, bare = sigmoid((day - turns) / np.array([6.0, 6.0, 5.0])).tolist()
    if canopy.evergreen:
        chlorophyll = canopy.chlorophyll * (0.85 + 0.15 * out * (1 - yellow))
        brown, water = 0.08, canopy.water * (0.92 + 0.08 * out * (1 - yellow))
    else:
        green = out * (1 - yellow)
        chlorophyll = canopy.chlorophyll * (0.08 + 0.92 * green)
        brown = 0.10 + 0.35 * yellow * out + 0.40 * max(bare, 1 - out)
        water = canopy.water * (0.55 + 0.45 * green)
    change = np.exp(deviation)
    date = datetime.datetime(2022, 1, 1, 3, 38) + datetime.timedelta(days=day)
    zenith, _ = sun_position(date)
    return np.asarray(
        prosail.run_prosail(
            canopy.layers,
            chlorophyll * change[1],
            2 + 0.2 * canopy.chlorophyll * (0.5 + 0.5 * out),
            max(brown + deviation[4], 0.0),
            water * change[2],
            canopy.dry_matter * change[3],
            leaf_area(canopy, np.array([day]))[0] * change[0],
            canopy.leaf_angle,
            0.05,
            zenith,
            4.0,
            60.0,
            prospect_version="D",
            typelidf=2,
            rsoil=canopy.soil * change[5],
            psoil=0.7,
        )
    )


@dataclass(frozen=True, kw_only=True)
class CanopyTable:
    """Log reflectance of every canopy through the year, and how it answers to traits."""

    centre: Float64[np.ndarray, "canopy node band"]
    """Natural logarithm of reflectance at mean traits, per node of eight days."""
    slope: Float64[np.ndarray, "canopy node trait band"]
    """First derivative by trait deviation."""
    bend: Float64[np.ndarray, "canopy node trait band"]
    """Half the second derivative."""

    def reflectance(
        self,
        canopy: int,
        *,
        day: Float64[np.ndarray, "stand"],
        deviation: Float64[np.ndarray, "stand trait"],
    ) -> Float64[np.ndarray, "stand band"]:
        """Return reflectance 0..1 of one canopy on one day of the year per stand."""
        position = np.mod(day, 365.0) / 8
        low = np.floor(position).astype(np.intp)
        high = (low + 1) % self.centre.shape[1]
        width = np.where(high == 0, 365 - _NODE_DAYS[-1], 8.0)
        weight = ((position - low) * 8 / width)[:, None]
        first, second = deviation[:, :, None], deviation[:, :, None] ** 2

        def at(node: np.ndarray) -> np.ndarray:
            answer = self.slope[canopy][node] * first + self.bend[canopy][node] * second
            return np.asarray(self.centre[canopy][node] + answer.sum(axis=1))  # (stand, band)

        return np.asarray(np.exp((1 - weight) * at(low) + weight * at(high)))


@functools.lru_cache(maxsize=1)
def canopy_tables() -> dict[Platform, CanopyTable]:
    """Run PROSAIL for every canopy, node and trait (about 3,600 spectra) and integrate to bands.

    Raises `InputError` if the package `prosail` is not installed.
    """
    visible_left, infrared_left = _SHADE_LEFT
    left = np.where(band_centres() < 700, visible_left, infrared_left)
    spectra = np.empty((len(CANOPIES), _NODE_DAYS.size, 1 + 2 * len(TRAITS), 2101))
    for c, canopy in enumerate(CANOPIES):
        for d, day in enumerate(_NODE_DAYS):
            spectra[c, d, 0] = _prosail(canopy, day, np.zeros(len(TRAITS)))
            for t, step in enumerate(_STEP):
                for s, sign in enumerate((-1, 1)):
                    deviation = np.zeros(len(TRAITS))
                    deviation[t] = sign * step
                    spectra[c, d, 1 + 2 * t + s] = _prosail(canopy, day, deviation)
    shade = np.array([canopy.shade for canopy in CANOPIES])[:, None, None, None]
    tables = {}
    for platform in PLATFORMS:
        bands = np.einsum("cdrw,bw->cdrb", spectra, band_weights(platform))
        logs = np.log(bands * (1 - shade * (1 - left)))  # (canopy, node, run, band)
        centre, less, more = logs[:, :, 0], logs[:, :, 1::2], logs[:, :, 2::2]
        step = _STEP[:, None]
        tables[platform] = CanopyTable(
            centre=centre,
            slope=(more - less) / (2 * step),
            bend=(more + less - 2 * centre[:, :, None]) / (2 * step**2),
        )
    return tables
