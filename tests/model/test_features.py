import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FeatureError
from model.features import BANDS, DEFAULT_FEATURES, FEATURES, REFERENCE_FEATURES, FeatureSet

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


def test_restricted_to_what_the_bands_allow() -> None:
    assert DEFAULT_FEATURES.restricted_to(("B04", "B08")).names == ("B04", "B08", "NDVI")
    with pytest.raises(FeatureError, match="suffice for none"):
        FeatureSet(names=("EVI",)).restricted_to(("B04", "B08"))


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
