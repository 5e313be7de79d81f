import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FeatureError
from model.features import (
    BANDS,
    DEFAULT_FEATURES,
    FEATURES,
    REFERENCE_FEATURES,
    FeatureSet,
    default_features,
    warnings_of,
)

# One leaf pixel; every expected number below was worked out by hand from these.
PIXEL = {
    "B01": 0.02, "B02": 0.03, "B03": 0.06, "B04": 0.04, "B05": 0.10, "B06": 0.25, "B07": 0.30,
    "B08": 0.36, "B8A": 0.40, "B09": 0.41, "B11": 0.20, "B12": 0.10, "AOT": 0.15, "WVP": 0.2,
}  # fmt: skip
EXPECTED = {
    "NDVI": 0.32 / 0.40,
    "NDWI": -0.30 / 0.42,
    "NDMI": 0.20 / 0.60,
    "NBR": 0.30 / 0.50,
    "NDRE": 0.30 / 0.50,
    "CIre": 2.0,
    "EVI": 2.5 * 0.32 / 1.375,  # 0.36 + 0.24 - 0.225 + 1
    "TCI_R": 51.0,
    "TCI_G": 76.0,  # 76.5 rounds to even
    "TCI_B": 38.0,  # 38.25
}


def one(values: dict[str, float]) -> tuple[np.ndarray, tuple[str, ...]]:
    return np.array(list(values.values()), np.float32).reshape(1, 1, -1), tuple(values)


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_formula_gives_the_number_worked_out_by_hand(name: str, expected: float) -> None:
    found = FeatureSet(names=(name,)).compute(*one(PIXEL))
    # TCI_G sits on the rounding edge 76.5, where Float32 may fall to either side
    np.testing.assert_allclose(
        found[0, 0, 0], expected, rtol=1e-5, atol=1.0 if name == "TCI_G" else 0
    )


def test_every_band_is_a_feature_by_itself() -> None:
    found = FeatureSet(names=BANDS).compute(*one(PIXEL))
    assert found[0, 0].tolist() == [np.float32(PIXEL[band]) for band in BANDS]


def test_reference_features_are_the_twenty_in_their_order() -> None:
    written = "AOT B1 B11 B12 B2 B3 B4 B5 B6 B7 B8 B8A B9 EVI NDVI NDWI TCI_B TCI_G TCI_R WVP"
    assert [n.replace("B0", "B") for n in REFERENCE_FEATURES.names] == written.split()
    assert REFERENCE_FEATURES.required_bands == BANDS


def test_default_features_need_ten_bands_and_nothing_of_the_atmosphere() -> None:
    assert DEFAULT_FEATURES.required_bands == tuple(
        band for band in BANDS if band not in ("B01", "B09", "AOT", "WVP")
    )


@pytest.mark.parametrize(
    ("name", "band", "value", "expected"),
    [
        ("NDVI", "B08", -0.04, math.nan),  # denominator 0
        ("NDVI", "B08", -0.5, math.nan),  # denominator negative
        ("NDVI", "B08", -0.039, -1.0),  # -79, clipped
        ("EVI", "B02", 0.25, math.nan),  # denominator -0.275
        ("EVI", "B02", 0.195, 2.0),  # 0.8 / 0.1375 = 5.8, clipped
        ("CIre", "B05", 0.001, 20.0),
        ("TCI_R", "B04", 0.7, 255.0),
        ("TCI_R", "B04", -0.01, 1.0),
    ],
)
def test_a_bad_pixel_cannot_explode(name: str, band: str, value: float, expected: float) -> None:
    found = FeatureSet(names=(name,)).compute(*one(PIXEL | {band: value}))
    np.testing.assert_equal(found[0, 0, 0], np.float32(expected))


@pytest.mark.parametrize("name", FEATURES)
def test_missing_stays_missing_and_only_where_it_is(name: str) -> None:
    features = FeatureSet(names=(name,))
    values, bands = one(PIXEL)
    for band in bands:
        with_gap = np.concatenate([values, values], axis=1)
        with_gap[0, 1, bands.index(band)] = np.nan
        found = features.compute(with_gap, bands)[0, :, 0]
        needed = band in FEATURES[name].bands
        assert np.isnan(found).tolist() == [False, needed]
        assert features.is_clear(with_gap, bands).tolist() == [[True, not needed]]


def test_order_of_bands_does_not_matter() -> None:
    values, bands = one(PIXEL)
    backwards = REFERENCE_FEATURES.compute(values[..., ::-1].copy(), bands[::-1])
    np.testing.assert_array_equal(backwards, REFERENCE_FEATURES.compute(values, bands))


@given(st.lists(st.floats(-1, 3.25, width=32), min_size=14, max_size=14))
def test_no_pixel_whatever_gives_infinity_or_leaves_the_range(values: list[float]) -> None:
    found = FeatureSet(names=tuple(FEATURES)).compute(np.array([[values]], np.float32), BANDS)
    assert not np.isinf(found).any()
    indices = FeatureSet(names=("NDVI", "NDWI", "NDMI", "NBR", "NDRE"))
    found = indices.compute(np.array([[values]], np.float32), BANDS)
    assert (np.abs(found[np.isfinite(found)]) <= 1).all()


def test_spellings_become_canonical() -> None:
    assert FeatureSet(names=("b2", "B8a", "ndvi")).names == ("B02", "B8A", "NDVI")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("B10",), "feature 'B10' does not exist; known are B01"),
        (("NDVI", "ndvi"), "NDVI are named twice"),
        ((), "no feature was asked for"),
    ],
)
def test_wrong_names_are_refused(names: tuple[str, ...], text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        FeatureSet(names=names)


def test_a_missing_band_is_named() -> None:
    values, bands = one({"B04": 0.1, "B08": 0.3})
    with pytest.raises(FeatureError, match="need bands B02, found only B04, B08"):
        FeatureSet(names=("NDVI", "EVI")).compute(values, bands)


def test_a_stored_band_of_any_sensor_is_a_feature_as_it_is() -> None:
    values, bands = one({"NDVI": 0.7, "B04": 0.04, "VV dB": -11.5})
    features = FeatureSet(names=("band:VV dB", "band:NDVI", "B04"))
    assert features.names == ("band:VV dB", "band:NDVI", "B04")
    assert features.required_bands == ("B04", "VV dB", "NDVI")
    found = features.compute(values, bands)[0, 0]
    np.testing.assert_array_equal(found, np.array([-11.5, 0.7, 0.04], np.float32))


def test_a_sentinel_band_needs_no_prefix_and_a_prefix_keeps_the_spelling() -> None:
    assert FeatureSet(names=("band:B04", "BAND:nir", "log:b4")).names == (
        "B04", "band:nir", "log:B04",
    )  # fmt: skip
    with pytest.raises(FeatureError, match="B04 are named twice"):
        FeatureSet(names=("band:B04", "b4"))


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, math.log(0.5)), (0.0, math.log(1e-4)), (-0.2, math.log(1e-4))]
)
def test_logarithm_of_reflectance_ends_at_a_ten_thousandth(value: float, expected: float) -> None:
    found = FeatureSet(names=("log:B04",)).compute(*one(PIXEL | {"B04": value}))
    assert found[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_spectral_shape_is_the_share_among_the_bands_of_the_set() -> None:
    features = FeatureSet(names=("shape:B04", "B02", "shape:B08", "shape:B11"))
    found = features.compute(*one(PIXEL))[0, 0]
    np.testing.assert_allclose(found, [0.04 / 0.6, 0.03, 0.36 / 0.6, 0.2 / 0.6], rtol=1e-5)
    assert features.required_bands == ("B02", "B04", "B08", "B11")
    dark = dict.fromkeys(PIXEL, 0.0001)
    assert np.isnan(FeatureSet(names=("shape:B04", "shape:B08")).compute(*one(dark))).all()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("shape:B04",), "'shape:B04' alone is always 1"),
        (("band:",), "names no band; write e.g. 'band:B04'"),
        (("log: B04",), "names no band"),
        (("shape:AOT", "shape:B04"), "AOT is no reflectance"),
    ],
)
def test_prefixes_that_make_no_sense_are_refused(names: tuple[str, ...], text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        FeatureSet(names=names)


def test_by_default_everything_of_the_ground_and_nothing_of_the_air() -> None:
    assert default_features(BANDS) == DEFAULT_FEATURES
    assert default_features(("NDVI",)).names == ("band:NDVI",)
    assert default_features(("B04", "AOT", "VH", "B08", "SCL")).names == (
        "B04", "B08", "NDVI", "band:VH",
    )  # fmt: skip
    with pytest.raises(FeatureError, match="none of the bands AOT, B01 is a feature by default"):
        default_features(("AOT", "B01"))


def test_what_tells_date_and_place_is_warned_of() -> None:
    assert warnings_of(DEFAULT_FEATURES) == ()
    found = warnings_of(FeatureSet(names=("B04", "AOT", "SIPI", "TCI_G")))
    assert found[0].startswith("AOT is a smooth field per scene")
    assert "97 % of the pixels; it identifies date and place" in found[0]
    assert found[1].startswith("SIPI is made of B01, which has 60 m pixels")
    assert found[2].startswith("TCI_G repeat B04, B03 and B02 as 8-bit counts")
    assert len(warnings_of(REFERENCE_FEATURES)) == 5


def test_what_tells_date_and_place_is_known_in_any_spelling() -> None:
    odd = ("B1", "aot", "wvp", "b9", "MSK_CLDPRB", "QA10", "QA_PIXEL", "scl", "VH")
    assert default_features(odd).names == ("band:VH",)
    found = warnings_of(FeatureSet(names=("band:B1", "band:aot", "log:b9")))
    assert [text.split(" in a simulated")[0][:24] for text in found] == [
        "band:B1 has 60 m pixels ", "band:aot is a smooth fie", "log:B09 is made of B09, ",
    ]  # fmt: skip
