"""Parts of an area in UTM zones, against asking place by place."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry

from cube.errors import InputError
from cube.grid import area_from_bbox, utm_epsg
from cube.zones import zone_areas


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-179, 150),
    st.floats(-79, 70),
    st.floats(0.01, 25),
    st.floats(0.01, 13),
    st.integers(0, 2**32 - 1),
)
def test_each_place_is_in_the_part_of_its_zone(left, bottom, width, height, seed):
    area = area_from_bbox((left, bottom, min(left + width, 180.0), bottom + height))
    parts = zone_areas(area)
    assert sum(part.geom.area for part in parts.values()) == pytest.approx(area.geom.area)
    random = np.random.default_rng(seed)
    west, south, east, north = area.geom.bounds
    x, y = random.uniform(west, east, 50), random.uniform(south, north, 50)
    for epsg, part in parts.items():
        is_own = utm_epsg(x, y) == epsg
        near = part.geom.buffer(1e-9)
        assert shapely.contains_xy(near, x[is_own], y[is_own]).all()
        inner = part.geom.buffer(-1e-9)
        assert not shapely.contains_xy(inner, x[~is_own], y[~is_own]).any()


def test_norway_and_svalbard_have_wide_zones():
    assert list(zone_areas(area_from_bbox((2.0, 60.0, 8.0, 61.0)))) == [32631, 32632]
    assert list(zone_areas(area_from_bbox((10.0, 76.0, 30.0, 80.0)))) == [32633, 32635]


def test_the_equator_parts_zones_and_the_antimeridian_does_not_stop_an_area():
    assert list(zone_areas(area_from_bbox((36.5, -1.0, 37.0, 1.0)))) == [32637, 32737]
    parts = zone_areas(area_from_bbox((178.0, -18.0, -178.0, -16.0)))
    assert list(parts) == [32701, 32760]
    assert parts[32701].geom.bounds == (180, -18, 182, -16)
    assert parts[32760].geom.bounds == (178, -18, 180, -16)


def test_a_hole_or_an_island_stays_what_it_is():
    ring = shapely.box(17, 49, 19, 50).difference(shapely.box(17.5, 49.2, 18.5, 49.8))
    area = Geometry(ring.union(shapely.box(30, 49, 30.1, 49.1)), "EPSG:4326")
    parts = zone_areas(area)
    assert list(parts) == [32633, 32634, 32636]  # the island's is 36, none is made for 35
    assert sum(part.geom.area for part in parts.values()) == pytest.approx(area.geom.area)


@pytest.mark.parametrize("bbox", [(10.0, 83.0, 12.0, 85.0), (10.0, -85.0, 12.0, -79.0)])
def test_poles_have_no_zones(bbox):
    with pytest.raises(InputError, match=r"UTM has zones between -80 and 84 .* 'equal-area'"):
        zone_areas(area_from_bbox(bbox))
