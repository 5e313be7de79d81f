"""Names of bands, against the product specification and three providers' own keys."""

import json

import pytest

from cube.bands import BANDS, NODATA, REFLECTANCE_BANDS, SCALE, STORED_MAX, canonical_band
from cube.errors import InputError


def test_layers_of_the_product():
    assert " ".join(REFLECTANCE_BANDS) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
    assert "B10" not in BANDS
    resolutions = {10: "B02 B03 B04 B08", 60: "B01 B09"}
    for resolution, names in resolutions.items():
        found = {name for name, band in BANDS.items() if band.resolution == resolution}
        assert found == set(names.split())
    assert {band.resolution for band in BANDS.values()} == {10, 20, 60}
    assert all(name == band.name for name, band in BANDS.items())


def test_a_stored_unit_is_the_same_physical_value_for_every_band():
    assert BANDS["B02"].stored_per_count * SCALE == pytest.approx(1e-4)  # reflectance
    assert BANDS["AOT"].stored_per_count * SCALE == pytest.approx(1e-3)  # optical depth
    assert BANDS["WVP"].stored_per_count * SCALE == pytest.approx(1e-3 / 10)  # cm, in dm
    assert [name for name, band in BANDS.items() if not band.has_offset] == ["AOT", "WVP"]
    assert NODATA < -10000 < 10000 < STORED_MAX


@pytest.mark.parametrize("name", BANDS)
def test_every_way_to_write_a_name(name):
    for spelling in (name, name.lower(), name.replace("B0", "B"), BANDS[name].earth_search):
        assert canonical_band(spelling) == name


def test_keys_of_earth_search(shared_data):
    items = [
        json.loads(path.read_text())
        for path in (shared_data / "stac-items" / "earth-search-v1-33TWN").glob("*.json")
    ]
    keys = {band.earth_search for band in BANDS.values()}
    complete = [item for item in items if "rededge1" in item.get("assets", {})]
    assert complete, "no Earth Search v1 item among the real ones"
    for item in complete:
        assert keys <= set(item["assets"])
        for band in BANDS.values():
            common = item["assets"][band.earth_search].get("eo:bands", [{}])[0].get("name")
            assert common in (None, band.earth_search, band.name, band.name.replace("B0", "B"))


@pytest.mark.parametrize("name", ["B10", "B13", "", " B02", "B002", "ndvi", "B2\n"])
def test_what_is_no_band(name):
    with pytest.raises(InputError, match="is no Sentinel-2 L2A band; known are B01, B02"):
        canonical_band(name)
