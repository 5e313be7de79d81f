"""Scenes kept for many windows: the same as a loop over all of them, read once, refused if other."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.periods import Period, period_numbers, periods_between
from cube.stac import Scene, SceneList, write_scenes
from cube.stac import kept as kept_module
from cube.stac.footprint import bbox_outline, geojson, meets_window, unwrapped
from cube.stac.kept import KeptScenes, kept_scenes

YEAR = periods_between(Period.of_month(2022, 1), Period.of_month(2022, 12))
SPANS = (YEAR[1], YEAR[2], YEAR[6])  # with gaps between and at both ends
WINDOWS = (
    GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 5_500_000), "EPSG:32633"),  # 15 E, 49.6 N
    GeoBox((64, 64), Affine(10, 0, 830_000, 0, -10, 5_500_000), "EPSG:32660"),  # beyond 180
    GeoBox((64, 64), Affine(0.1, 0, 176.0, 0, -0.1, 52.0), "EPSG:4326"),  # across it
)


def scene(number, outline, start):
    return Scene(
        id=f"S{number:04d}", collection="c", time=start.replace(tzinfo=UTC), overpass=f"S2A_{start:%Y%m%dT%H%M%S}",
        tile="33UVQ", baseline="05.09", version=("", ""), epsg=32633, footprint=geojson(outline),
        cloud_cover=None, assets={}, offset=0, offset_reason="none",
    )  # fmt: skip


def kept(scenes):
    return KeptScenes(
        fingerprint="",
        scenes=tuple(scenes),
        starts=np.array([one.overpass_start.replace(tzinfo=None) for one in scenes], "M8[ns]"),
        footprints=shapely.STRtree([unwrapped(one.footprint) for one in scenes]),
    )


def boxes(west, east):
    return st.builds(
        lambda left, south, wide, high: bbox_outline((left, south, left + wide, south + high)),
        st.floats(west, east - 2),
        st.floats(48.0, 51.0),
        st.floats(0.001, 2.0),
        st.floats(0.001, 2.0),
    )


OUTLINES = st.one_of(
    boxes(13.0, 18.0),
    boxes(174.0, 180.0),
    boxes(-180.0, -174.0),
    st.just(bbox_outline((178.0, 48.0, -178.0, 51.0))),
)
STARTS = st.integers(0, 364 * 86400).map(
    lambda late: datetime(2022, 1, 1) + timedelta(seconds=late)
)


@given(st.lists(st.tuples(OUTLINES, STARTS), max_size=25), st.sampled_from(WINDOWS))
def test_lookups_are_a_loop_over_all_scenes(drawn, window):
    scenes = [scene(number, *one) for number, one in enumerate(drawn)]
    found = kept(scenes).by_period(window, SPANS)
    footprints = np.empty(len(scenes), object)
    footprints[:] = [unwrapped(one.footprint) for one in scenes]
    is_near = meets_window(footprints, window)
    assert found == {
        period: [
            one
            for one, near in zip(scenes, is_near, strict=True)
            if near and period.holds(one.overpass_start)
        ]
        for period in SPANS
    }


@given(st.lists(st.integers(-400, 800)))
def test_numbers_of_periods_are_those_that_hold_an_instant(days):
    instants = np.datetime64("2022-01-01", "ns") + np.array(days, "m8[D]").astype("m8[ns]")
    expected = [
        next((at for at, period in enumerate(SPANS) if period.holds(instant)), -1)
        for instant in instants
    ]
    assert period_numbers(SPANS, instants).tolist() == expected


def test_a_lock_file_is_read_once_for_each_version(tmp_path, monkeypatch):
    reads, read = [], kept_module.read_scenes
    monkeypatch.setattr(kept_module, "read_scenes", lambda path: reads.append(path) or read(path))
    path = tmp_path / "scenes.parquet"
    one = scene(1, bbox_outline((14.0, 49.0, 16.0, 50.0)), datetime(2022, 3, 4))
    write_scenes(path, SceneList(scenes=(one,)))
    first = kept_scenes(path)
    assert kept_scenes(path, fingerprint=first.fingerprint) is first
    write_scenes(
        path, SceneList(scenes=(one, scene(2, unwrapped(one.footprint), datetime(2022, 7, 4))))
    )
    assert len(kept_scenes(path).scenes) == 2
    assert len(reads) == 2
    with pytest.raises(InputError, match="was replaced while this run read it; run again"):
        kept_scenes(path, fingerprint=first.fingerprint)
    with pytest.raises(InputError, match="does not exist"):
        kept_scenes(tmp_path / "none.parquet")
