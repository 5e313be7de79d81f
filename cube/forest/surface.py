"""Ground and date in, true surface reflectance out, band by band on the native 10 m grid."""

import datetime

import numpy as np
from jaxtyping import Float32, Float64, UInt16

from cube.bands import REFLECTANCE_BANDS
from cube.forest.canopy import CANOPIES, TRAITS, CanopyTable, canopy_tables, leaf_area
from cube.forest.noise import SmoothNoise, sigmoid
from cube.forest.sensor import Platform
from cube.forest.spec import ForestSpec
from cube.forest.stands import Ground, ground, pixel_axis
from cube.forest.sun import illumination, sun_position

SNOW_REFLECTANCE = (0.82, 0.82, 0.80, 0.78, 0.77, 0.75, 0.73, 0.71, 0.68, 0.55, 0.10, 0.08)
"""Old snow in each of `REFLECTANCE_BANDS`, read off the curves of Warren (1982), Reviews of
Geophysics 20."""

_SNOW_LINE = (
    (1, 1650),
    (60, 1750),
    (80, 2000),
    (100, 2400),
    (115, 3500),
    (300, 3500),
    (315, 2300),
    (335, 1950),
    (350, 1750),
    (366, 1650),
)
"""(day of the year, metres above sea at which half the ground is white)."""

_EXTINCTION = 0.5
"""Share of the ground hidden by leaves: 1 - exp(-0.5 leaf area index)."""


class Surface:
    """What the forest reflects on one date, clouds and air left out.

    A stand's spectrum comes from the canopy tables; inside the stand, the pixel's small deviations
    act through the derivatives of that spectrum. Two stands share the pixels along their edge.
    """

    def __init__(self, spec: ForestSpec, *, time: datetime.datetime, platform: Platform) -> None:
        """Prepare the stand tables for `time` (UTC) and the bands of `platform`."""
        self._ground = ground(spec)
        day = time.timetuple().tm_yday
        self._stands = _StandTables(self._ground, day=float(day), table=canopy_tables()[platform])
        zenith, azimuth = sun_position(time)
        self.light: Float32[np.ndarray, "y x"] = illumination(
            self._ground.elevation, zenith=zenith, azimuth=azimuth
        )
        """Factor of slope and aspect, 1 on flat ground."""
        self.snow: Float32[np.ndarray, "y x"] = self._snow(spec, day)
        """Share of the pixel where snow is seen, 0..1."""

    def band(self, band: int) -> Float32[np.ndarray, "y x"]:
        """Return reflectance 0..1 of one of `REFLECTANCE_BANDS`, by index, on native pixels."""
        here = self._ground
        forest = self._stands.reflectance(
            band,
            here.stand,
            leaf_area=here.leaf_area,
            chlorophyll=here.chlorophyll,
            day=here.day,
            share=here.share,
        )
        edge = here.edge_pixel
        beyond = self._stands.reflectance(
            band,
            here.edge_stand,
            leaf_area=here.leaf_area.ravel()[edge],
            chlorophyll=here.chlorophyll.ravel()[edge],
            day=here.day.ravel()[edge],
            share=np.zeros(edge.size, np.float32),
        )
        flat = forest.reshape(-1)
        flat[edge] += here.edge_share * (beyond - flat[edge])
        forest += self.snow * (np.float32(SNOW_REFLECTANCE[band]) - forest)
        return np.asarray(forest * self.light, np.float32)

    def _snow(self, spec: ForestSpec, day: int) -> Float32[np.ndarray, "y x"]:
        here = self._ground
        days, heights = zip(*_SNOW_LINE, strict=True)
        line = float(np.interp(day, days, heights))
        if line > 3000:
            return np.zeros_like(here.elevation)
        axis, side = pixel_axis(spec.edge), spec.edge * 10.0
        patches = SmoothNoise(
            spec.generator("snow", day), extent=(side, side), octaves=((600.0, 1.0), (150.0, 0.7))
        ).on_grid(axis, axis)
        on_ground = sigmoid((here.elevation + 70 * patches - np.float32(line)) / np.float32(60))
        return np.asarray(on_ground * self._stands.gap.astype(np.float32)[here.stand], np.float32)


class _StandTables:
    """Per stand and band: reflectance on a date and its derivatives; all tables (stand, band)."""

    def __init__(self, here: Ground, *, day: float, table: CanopyTable) -> None:
        # Spring is late and autumn early where a stand is high: +1 at day 119, -1 at day 302.
        sense = float(np.sin(2 * np.pi * (day - 28) / 365))
        days = day - sense * here.delay

        def spectrum(traits: Float64[np.ndarray, "stand trait"], days: np.ndarray) -> np.ndarray:
            """Return the reflectance of the main and the second canopy (2, stand, band)."""
            both = np.empty((2, days.size, len(REFLECTANCE_BANDS)))
            for canopy in range(len(CANOPIES)):
                for rank in range(2):
                    row = here.canopies[:, rank] == canopy
                    both[rank, row] = table.reflectance(
                        canopy, day=days[row], deviation=traits[row]
                    )
            return np.asarray(both * here.brightness[:, None])

        share = here.second_share[:, None]

        def mixed(both: np.ndarray) -> np.ndarray:
            return np.asarray((1 - share) * both[0] + share * both[1])  # (stand, band)

        def log_slope(trait: str) -> Float32[np.ndarray, "stand band"]:
            traits = here.traits.copy()
            traits[:, TRAITS.index(trait)] += 0.05
            return np.asarray(np.log(mixed(spectrum(traits, days)) / middle) / 0.05, np.float32)

        both = spectrum(here.traits, days)
        middle = mixed(both)
        self._middle = middle.astype(np.float32)
        self._by_leaf_area = log_slope("leaf_area")
        self._by_chlorophyll = log_slope("chlorophyll")
        later = mixed(spectrum(here.traits, days - sense * 2.0))
        self._by_day = (np.log(later / middle) / 2.0).astype(np.float32)
        self._by_share = (both[1] - both[0]).astype(np.float32)
        held = np.stack([1 - here.second_share, here.second_share], axis=1)  # (stand, 2)
        covers = np.zeros(days.size)
        for canopy, one in enumerate(CANOPIES):
            covers += leaf_area(one, days) * (held * (here.canopies == canopy)).sum(axis=1)
        self.gap = np.exp(-_EXTINCTION * covers)
        """Share of the ground that is seen from above, (stand,)."""

    def reflectance(
        self,
        band: int,
        stand: UInt16[np.ndarray, "*place"],
        *,
        leaf_area: Float32[np.ndarray, "*place"],
        chlorophyll: Float32[np.ndarray, "*place"],
        day: Float32[np.ndarray, "*place"],
        share: Float32[np.ndarray, "*place"],
    ) -> Float32[np.ndarray, "*place"]:
        """Return reflectance where the pixel is off its stand's mean by the four deviations."""
        change = np.take(self._by_leaf_area[:, band], stand) * leaf_area
        change += np.take(self._by_chlorophyll[:, band], stand) * chlorophyll
        change += np.take(self._by_day[:, band], stand) * day
        np.exp(change, out=change)
        change *= np.take(self._middle[:, band], stand)
        change += np.take(self._by_share[:, band], stand) * share
        return np.asarray(np.maximum(change, np.float32(0.001)))


def true_surface(
    spec: ForestSpec, *, time: datetime.datetime, platform: Platform = "S2A"
) -> Float32[np.ndarray, "band y x"]:
    """Return the surface on the native grid at any `time` (UTC), as if there were no air.

    Reflectance 0..1 of `REFLECTANCE_BANDS` in the light of slope and sun, snow included.
    """
    surface = Surface(spec, time=time, platform=platform)
    return np.stack([surface.band(band) for band in range(len(REFLECTANCE_BANDS))])
