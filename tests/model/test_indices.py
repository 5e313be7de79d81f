"""The list's formulas against the list's own interpreter."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spyndex
from hypothesis import given
from hypothesis import strategies as st

from model import indices
from model.errors import FeatureError
from model.features import BANDS, FEATURES, FeatureSet
from model.indices import BAND_OF_LETTER, index_names, spectral_index

DATA = Path(spyndex.__file__).parent / "data"
CONSTANTS = json.loads((DATA / "constants.json").read_text())
LETTERS = json.loads((DATA / "bands.json").read_text())


def _usable() -> list[str]:
    names = []
    for name in index_names():
        try:
            names.append(spectral_index(name).name)
        except FeatureError:
            continue
    return names


USABLE = _usable()


def _settings() -> dict[str, float]:
    settings = {name: entry["default"] for name, entry in CONSTANTS.items()}
    for letter, entry in LETTERS.items():
        if f"lambda{letter}" in settings:
            settings[f"lambda{letter}"] = entry["platforms"]["sentinel2a"]["wavelength"]
    return settings


def test_letters_are_the_bands_the_list_says() -> None:
    for letter, band in BAND_OF_LETTER.items():
        theirs = LETTERS[letter]["platforms"]["sentinel2a"]["band"]
        assert band.replace("B0", "B") == theirs
    others = set(LETTERS) - set(BAND_OF_LETTER)
    assert not any("sentinel2a" in LETTERS[letter]["platforms"] for letter in others)


def test_most_of_the_list_can_be_computed() -> None:
    assert len(USABLE) >= 230
    optical = {
        name
        for name, entry in spyndex.indices.items()
        if "Sentinel-2" in entry.platforms and entry.application_domain != "kernel"
    }
    assert optical - set(USABLE) == {"NIRvP"}  # needs the light that falls in


@pytest.mark.parametrize("name", USABLE)
def test_index_equals_that_of_spyndex(name: str) -> None:
    random = np.random.default_rng(3)
    reflectance = random.uniform(0.02, 0.6, (200, 1, len(BANDS))).astype(np.float32)
    index = spectral_index(name)
    by_name = dict(zip(BANDS, np.moveaxis(reflectance, -1, 0), strict=True))
    found = index.compute(by_name)
    by_letter = {letter: by_name[band].astype(float) for letter, band in BAND_OF_LETTER.items()}
    with np.errstate(invalid="ignore"):
        expected = spyndex.computeIndex(name, params=_settings() | by_letter)
        raw = index.raw(by_letter)
    expected = np.broadcast_to(expected, found.shape)
    np.testing.assert_allclose(raw, expected, rtol=1e-9)
    clipped = np.clip(expected, index.lowest, index.highest)
    np.testing.assert_allclose(found, clipped, rtol=2e-6, atol=1e-6)


def test_real_surfaces_are_hardly_clipped() -> None:
    # 120 Landsat pixels of towns, plants and water that come with the list
    table = spyndex.datasets.open("spectral")
    bands = ("B01", "B02", "B03", "B04", "B08", "B11", "B12")
    by_name = {band: table[f"SR_B{n}"].to_numpy() for n, band in enumerate(bands, start=1)}
    by_letter = {letter: by_name.get(band) for letter, band in BAND_OF_LETTER.items()}
    checked = 0
    for name in USABLE:
        index = spectral_index(name)
        if not set(index.bands) <= set(bands):
            continue
        with np.errstate(invalid="ignore"):
            raw = index.raw(by_letter)
        known = raw[np.isfinite(raw)]
        outside = (known < index.lowest) | (known > index.highest)
        assert outside.mean() <= 0.05, name
        checked += 1
    assert checked > 150


@given(st.lists(st.floats(-1, 3.25, width=32), min_size=14, max_size=14))
def test_no_pixel_whatever_gives_infinity(values: list[float]) -> None:
    by_name = dict(zip(BANDS, np.array(values, np.float32).reshape(14, 1), strict=True))
    for name in ("MTCI", "RI4XS", "BAI", "AVI", "TWI", "SR", "GNDVI", "S2REP"):
        index = spectral_index(name)
        found = index.compute(by_name)
        assert not np.isinf(found).any()
        inside = (found >= np.float32(index.lowest)) & (found <= np.float32(index.highest))
        assert (inside | np.isnan(found)).all()


def test_a_denominator_of_nothing_has_no_value() -> None:
    by_name = {band: np.full(1, 0.25, np.float32) for band in BANDS}
    assert np.isnan(spectral_index("MTCI").compute(by_name)).all()  # B05 - B04 is 0
    by_name = {band: np.zeros(1, np.float32) for band in BANDS}
    assert np.isnan(spectral_index("GNDVI").compute(by_name)).all()


def test_an_index_of_the_list_is_a_feature_and_ours_go_first() -> None:
    features = FeatureSet(names=("gndvi", "NBR", "MTCI", "CIRE"))
    assert features.names == ("GNDVI", "NBR", "MTCI", "CIre")
    assert features.required_bands == ("B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B12")
    assert FEATURES["NBR"].bands == ("B8A", "B12")  # the list's is made of B08
    assert features.definitions == {
        "GNDVI": "(N - G)/(N + G)", "MTCI": "(RE2 - RE1) / (RE1 - R)",
    }  # fmt: skip
    assert FeatureSet(names=("SAVI",)).definitions["SAVI"].endswith("(N + R + L); L = 1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kNDVI", r"'kNDVI' needs kNN, kNR \(a kernel\)"),
        ("CCI", r"'CCI' needs G1 \(a band Sentinel-2 has not\)"),
        ("VHVVR", r"needs VH, VV \(a band Sentinel-2 has not\)"),
        ("NIRvP", r"needs PAR \(a constant without a default\)"),
        ("bai", "feature 'bai' may be BAI or BaI; write it as the list"),
        ("NDFI9", "feature 'NDFI9' does not exist; known are B01"),
    ],
)
def test_what_cannot_be_computed_is_refused(name: str, text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        FeatureSet(names=(name,))
    if name not in index_names():
        with pytest.raises(FeatureError, match="is not in the Awesome Spectral Indices list"):
            spectral_index(name)


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').getcwd()", "N.__class__", "N if R else G", "[N][0]", "N // R", "N % 2",
        "N @ R", "lambda: N", "(N := R)", "N and R", "True + N", "'a' * 3 + N", "1j * N", "Q - N",
        "~N", "N < R", "abs(N)",
    ],
)  # fmt: skip
def test_a_formula_that_is_more_than_arithmetic_is_refused(formula: str) -> None:
    with pytest.raises(FeatureError, match="only numbers, bands and"):
        indices._compile(formula, {}, "odd")


@pytest.mark.parametrize("formula", ["", "N -", "N; R", "x" * 10 + "("])
def test_a_formula_that_is_none_is_refused(formula: str) -> None:
    with pytest.raises(FeatureError, match="cannot be read"):
        indices._compile(formula, {}, "odd")


def test_a_formula_without_bands_is_refused() -> None:
    with pytest.raises(FeatureError, match="is made of no band"):
        indices._compile("1 / 3", {}, "odd")


def test_reading_the_list_runs_none_of_its_code() -> None:
    code = (
        "import sys; from model.features import FeatureSet; FeatureSet(names=('GNDVI',)); "
        "bad = {'spyndex', 'xarray', 'dask'} & set(sys.modules); sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ast.parse(Path(indices.__file__).read_text(encoding="utf-8"))
