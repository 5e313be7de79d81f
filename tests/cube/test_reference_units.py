"""Regions, shares of mixed plots and lost polygons of a label file: by hand."""

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.reference import ReferenceOptions, read_reference

CRS = "EPSG:32633"
GRID = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 5_200_000), CRS)


def test_regions_belong_to_the_cells_of_their_shapes(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(
        "lon,lat,class,county\n"
        "500005,5199995,oak,north\n500105,5199995,fir,south\n500205,5199995,fir,north\n"
    )
    options = ReferenceOptions(file=file, x_column="lon", y_column="lat", crs=CRS, patch=2)
    plain = read_reference(options, GRID)
    assert plain.region is None
    asked = read_reference(replace(options, region_column="county"), GRID)
    assert asked.region is not None
    by_group = dict(zip(asked.group.tolist(), asked.region.tolist(), strict=True))
    assert by_group == {"#1": "north", "#2": "south", "#3": "north"}
    file.write_text(file.read_text() + "500305,5199995,fir,\n500405,5199995,,\n")
    with pytest.raises(
        InputError, match="'county' is blank for 1 of 4 labelled shapes, first shape 4"
    ):
        read_reference(replace(options, region_column="county"), GRID)


@pytest.mark.parametrize("name", ["p.csv", "p.gpkg"])
def test_shares_of_mixed_plots_are_normalised(tmp_path: Path, name: str) -> None:
    rows = [
        (500_005, 60, 40, None),
        (500_105, 0.2, 0.2, None),  # equal shares: the first class by name
        (500_205, None, None, 3),
        (500_305, None, 0, None),
    ]
    columns = ["oak %", "beech %", "red oak"]
    if name.endswith("csv"):
        lines = [
            ",".join(["x", "y", *columns]),
            *(",".join([str(x), "5199995", *("" if s is None else str(s) for s in shares)])
              for x, *shares in rows),
        ]  # fmt: skip
        (tmp_path / name).write_text("\n".join(lines))
    else:
        geopandas.GeoDataFrame(
            {c: [row[n] for row in rows] for n, c in enumerate(columns, start=1)},
            geometry=[
                shapely.box(x - 5, 5_199_990, x + 5, 5_200_000)
                if n % 2
                else shapely.Point(x, 5_199_995)
                for n, (x, *_) in enumerate(rows)
            ],
            crs=CRS,
        ).to_file(tmp_path / name)
    options = ReferenceOptions(
        file=tmp_path / name,
        crs=CRS if name.endswith("csv") else None,
        share_columns={"oak %": "oak", "beech %": "beech", "red oak": "oak"},
    )
    reference = read_reference(options, GRID)
    assert reference.share_classes == ("beech", "oak")
    assert reference.share is not None
    np.testing.assert_allclose(reference.share, [[0.4, 0.6], [0.5, 0.5], [0, 1]], rtol=1e-6)
    assert reference.label.tolist() == ["oak", "beech", "oak"]
    assert reference.dropped == {"blank labels": 1}


def test_shares_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    options = ReferenceOptions(file=file, crs=CRS, share_columns={"a": "oak", "b": "fir"})
    for text in ("-1", "much", "inf"):
        file.write_text(f"x,y,a,b\n500005,5199995,1,1\n500105,5199995,{text},1\n")
        with pytest.raises(
            InputError, match=rf"line 3: a '{text}' is no share; expected 0 or more"
        ):
            read_reference(options, GRID)
    file.write_text("x,y,a\n500005,5199995,1\n")
    with pytest.raises(InputError, match="has no column 'b'"):
        read_reference(options, GRID)
    for odd, match in (
        ({"share_columns": {"a": "oak"}}, "share_columns name one class"),
        ({"share_columns": {"a": "oak", "b": " "}}, "gives 'b' a blank class"),
        ({"classes": {"oak": "q"}}, "classes and drop go with class_column"),
    ):
        with pytest.raises(InputError, match=match):
            replace(options, **odd)  # type: ignore[arg-type]
    raster = tmp_path / "r.tif"
    raster.touch()
    for one in ({"region_column": "county"}, {"share_columns": {"a": "oak", "b": "fir"}}):
        with pytest.raises(InputError, match="is a label raster, which has no columns"):
            read_reference(ReferenceOptions(file=raster, **one), GRID)  # type: ignore[arg-type]


def test_polygons_that_erosion_empties_and_small_ones_are_told_apart_by_name(
    tmp_path: Path,
) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["oak"] * 9, "stand": ["big", "strip", *(f"speck {n}" for n in range(7))]},
        geometry=[
            shapely.box(500_000, 5_199_900, 500_100, 5_200_000),
            shapely.box(500_200, 5_199_900, 500_215, 5_200_000),
            *(
                shapely.box(500_301 + 20 * n, 5_199_951, 500_303 + 20 * n, 5_199_953)
                for n in range(7)
            ),
        ],
        crs=CRS,
    )
    frame.to_file(tmp_path / "s.gpkg")
    options = ReferenceOptions(file=tmp_path / "s.gpkg", group_column="stand", erode=10)
    reference = read_reference(options, GRID)
    assert set(reference.group.tolist()) == {"big"}
    assert reference.dropped == {
        "polygons that erosion leaves empty": 1,
        "polygons without a cell centre inside": 7,
    }
    assert reference.dropped_names == {
        "polygons that erosion leaves empty": ("strip",),
        "polygons without a cell centre inside": tuple(f"speck {n}" for n in range(5)),
    }
