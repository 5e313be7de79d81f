"""Counts and masks of every sensor mean what their specifications say."""

import numpy as np
import pytest

from cube.bands import BANDS
from cube.errors import InputError
from cube.mask import SCL_CLASSES
from cube.stac.sensors import SENSORS


def test_every_sensor_has_known_bands():
    assert list(SENSORS) == ["sentinel-2-l2a", "landsat-c2-l2", "hls-s30", "hls-l30"]
    for name, sensor in SENSORS.items():
        assert sensor.name == name
        assert set(sensor.keys) <= set(BANDS)
        keys = [key for keys in sensor.keys.values() for key in keys]
        assert len(keys) == len(set(keys))
        assert keys == [key.lower() for key in keys]
        assert np.iinfo(sensor.dtype).min <= sensor.nodata <= np.iinfo(sensor.dtype).max
        assert sensor.mask_nodata <= np.iinfo(sensor.mask_dtype).max
        empty = sensor.classes_of(np.full((2, 3), sensor.mask_nodata, sensor.mask_dtype))
        assert empty.tolist() == [[0, 0, 0], [0, 0, 0]]
        assert empty.dtype == np.uint8


def test_asset_keys():
    sentinel, landsat = SENSORS["sentinel-2-l2a"], SENSORS["landsat-c2-l2"]
    assert [sentinel.band_of(key) for key in ("red", "B04", "b4", "nir08", "B8A", "aot")] == [
        *("B04", "B04", "B04", "B8A", "B8A", "AOT")
    ]
    assert [landsat.band_of(key) for key in ("coastal", "nir08", "swir16", "qa_pixel", "B4")] == [
        *("B01", "B8A", "B11", None, None)
    ]
    assert SENSORS["hls-l30"].band_of("B05") == "B8A"
    assert SENSORS["hls-s30"].band_of("B05") == "B05"
    assert SENSORS["hls-s30"].band_of("B10") is None


@pytest.mark.parametrize(
    ("sensor", "band", "offset", "count", "stored"),
    [
        ("sentinel-2-l2a", "B02", 0, 1234, 1234),
        ("sentinel-2-l2a", "B02", -1000, 1234, 234),
        ("sentinel-2-l2a", "AOT", -1000, 123, 1230),  # 0.123, and no offset
        ("sentinel-2-l2a", "WVP", 0, 1500, 1500),  # 1.5 cm in 1e-4 dm
        ("landsat-c2-l2", "B04", 0, 7273, 0.075),  # smallest valid count, reflectance 0.0000075
        ("landsat-c2-l2", "B8A", 0, 43636, 9999.9),  # largest valid count, reflectance 1
        ("hls-s30", "B05", 0, 321, 321),
        ("hls-l30", "B12", 0, -12, -12),
    ],
)
def test_calibration(sensor, band, offset, count, stored):
    gain, bias = SENSORS[sensor].calibration(band, offset=offset)
    assert count * gain + bias == pytest.approx(stored)


def test_bands_that_a_sensor_has_not():
    with pytest.raises(InputError, match="'landsat-c2-l2' has no band 'B05'; it has B01, B02"):
        SENSORS["landsat-c2-l2"].calibration("B05")


def test_scl_stays_what_it_is():
    sentinel = SENSORS["sentinel-2-l2a"]
    assert sentinel.classes_of(np.arange(12, dtype=np.uint8)).tolist() == list(range(12))
    assert sentinel.classes_of(np.array([12, 255], np.uint8)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (21824, 4),  # clear land, as most pixels of a scene of Landsat 8
        (21952, 6),  # clear water
        (5440, 4),  # clear land of Landsat 4-7
        (1, 0),  # fill
        (0, 0),
        (22280, 9),  # cloud
        (21826, 8),  # rim of a cloud
        (23888, 3),  # cloud shadow
        (30048, 11),  # snow
        (54596, 10),  # cirrus
    ],
)
def test_qa_pixel_by_values_of_the_guide(value, expected):
    mask = np.full((1, 2), value, np.uint16)
    assert SENSORS["landsat-c2-l2"].classes_of(mask).tolist() == [[expected, expected]]


LANDSAT_BITS = ((0, 0), (3, 9), (2, 10), (4, 3), (1, 8), (5, 11), (7, 6))
HLS_BITS = ((1, 9), (0, 10), (3, 3), (2, 8), (4, 11), (5, 6))


def by_loop(values, bits, nothing):
    """The first bit set of `bits`, one value at a time, by string arithmetic."""
    found = []
    for value in values:
        digits = f"{value:016b}"[::-1]
        told = [code for bit, code in bits if digits[bit] == "1"]
        found.append(0 if value in nothing else told[0] if told else 4)
    return found


def test_every_value_of_both_masks():
    values = np.arange(65536, dtype=np.uint16)
    found = SENSORS["landsat-c2-l2"].classes_of(values)
    assert found.tolist() == by_loop(values.tolist(), LANDSAT_BITS, {0})
    values = np.arange(256, dtype=np.uint8)
    for name in ("hls-s30", "hls-l30"):
        found = SENSORS[name].classes_of(values)
        assert found.tolist() == by_loop(values.tolist(), HLS_BITS, {255})
        assert set(found.tolist()) <= set(SCL_CLASSES)
