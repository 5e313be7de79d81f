"""Date and place in, position of the sun out; slope and sun in, illumination out."""

import datetime

import numpy as np
from jaxtyping import Float32

LATITUDE, LONGITUDE = 33.70, 107.62

_DIFFUSE = 0.45
"""The constant c of the C-correction: the share of light that does not come from the sun's disc,
set so that a slope in its own shadow keeps a third of the light of flat ground."""


def sun_position(time: datetime.datetime) -> tuple[float, float]:
    """Return (zenith, azimuth from north over east) of the sun over the forest, in degrees.

    `time` is UTC. Declination and equation of time as Fourier series after Spencer (1971),
    "Fourier series representation of the position of the sun"; leap years shift it by up to
    half a degree.
    """
    day = time.timetuple().tm_yday
    hour = time.hour + time.minute / 60 + time.second / 3600
    angle = 2 * np.pi * (day - 1 + (hour - 12) / 24) / 365
    declination = (
        0.006918
        - 0.399912 * np.cos(angle)
        + 0.070257 * np.sin(angle)
        - 0.006758 * np.cos(2 * angle)
        + 0.000907 * np.sin(2 * angle)
        - 0.002697 * np.cos(3 * angle)
        + 0.00148 * np.sin(3 * angle)
    )
    equation_of_time = 229.18 * (
        0.000075
        + 0.001868 * np.cos(angle)
        - 0.032077 * np.sin(angle)
        - 0.014615 * np.cos(2 * angle)
        - 0.040849 * np.sin(2 * angle)
    )
    solar_hour = hour + LONGITUDE / 15 + equation_of_time / 60
    hour_angle = np.radians(15 * (solar_hour - 12))
    latitude = np.radians(LATITUDE)
    up = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
        hour_angle
    )
    east = -np.cos(declination) * np.sin(hour_angle)
    north = np.sin(declination) * np.cos(latitude) - np.cos(declination) * np.sin(
        latitude
    ) * np.cos(hour_angle)
    zenith = np.degrees(np.arccos(np.clip(up, -1, 1)))
    azimuth = np.degrees(np.arctan2(east, north)) % 360
    return float(zenith), float(azimuth)


def illumination(
    elevation: Float32[np.ndarray, "y x"], *, zenith: float, azimuth: float
) -> Float32[np.ndarray, "y x"]:
    """Return the factor by which slope and aspect change reflectance; 1 on flat ground.

    The C-correction of Teillet, Guindon & Goodenough (1982) run backwards:
    (cos i + c) / (cos z + c), with i the angle between sun and slope. `elevation` is in metres on
    10 m pixels, rows running south. Shadows that one hill casts on another are left out.
    """
    south, east = np.gradient(elevation, np.float32(10))
    z, a = np.radians(zenith), np.radians(azimuth)
    # The slope's normal is (-east, +south, 1) in (east, north, up) over its own length.
    along = -east * np.float32(np.sin(a)) + south * np.float32(np.cos(a))
    length = np.sqrt(1 + east**2 + south**2)
    cosine = (np.float32(np.cos(z)) + np.float32(np.sin(z)) * along) / length
    lit = np.maximum(cosine, np.float32(0)) + np.float32(_DIFFUSE)
    return np.asarray(lit / np.float32(np.cos(z) + _DIFFUSE), np.float32)
