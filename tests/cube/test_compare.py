"""Two cubes compared: NumPy on whole arrays and plain loops in Python integers as the oracle."""

import dataclasses
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from odc.geo.geobox import GeoBox

from cube.bands import NODATA
from cube.compare import Agreement, ClearAgreement, Tally, check_complete, overlap, tally_piece
from cube.compare.tally import ClearCounts, PairSums, tally_period
from cube.errors import InputError
from cube.ledger import Ledger, sealed
from cube.periods import Period
from cube.spec import CubeSpec
from cube.store import CubeBlocks, count_files, create_cube, open_stored_cube, write_region

MONTHS = ("2022-02", "2022-03", "2022-05")
BANDS = ("B02", "B04", "AOT")


def make_spec(
    *,
    shape: tuple[int, int] = (50, 70),
    corner: tuple[float, float] = (500_000, 5_300_000),
    size: float = 10,
    crs: str = "EPSG:32633",
    months: tuple[str, ...] = MONTHS,
    **changes: Any,
) -> CubeSpec:
    grid = GeoBox(shape, Affine(size, 0, corner[0], 0, -size, corner[1]), crs)
    periods = tuple(map(Period.parse, months))
    layout = {"bands": BANDS, "tile": 32, "chunk": 16} | changes
    return CubeSpec(geobox=grid, periods=periods, **layout)


def make_pixels(spec: CubeSpec, seed: int) -> CubeBlocks:
    random = np.random.default_rng(seed)
    times, bands, height, width = spec.shape
    blocks = CubeBlocks.empty(times, bands, height, width)
    blocks.reflectance[:] = random.integers(-200, 12_000, spec.shape)
    blocks.clear_count[:] = random.integers(0, 4, (times, height, width))
    blocks.reflectance[np.broadcast_to((blocks.clear_count == 0)[:, None], spec.shape)] = NODATA
    blocks.reflectance[random.random(spec.shape) < 0.02] = NODATA  # a gap in one band only
    return blocks


def make_cube(path: Path, spec: CubeSpec, blocks: CubeBlocks) -> Path:
    create_cube(path, spec)
    ledger = Ledger(store=path, inputs="these")
    ledger.prepare()
    for region in spec.regions():
        part = {name: b[..., region.rows, region.columns] for name, b in blocks.layers.items()}
        write_region(path, region, CubeBlocks(**part))
        ledger.record(region, {"files": count_files(path, region)})
    return path


def whole(path: Path) -> Any:
    return open_stored_cube(path).load()


def all_of(spec: CubeSpec) -> dict[str, slice]:
    return {"rows": slice(0, spec.shape[2]), "columns": slice(0, spec.shape[3])}


def close(found: float | None, expected: float, digits: float = 1e-12) -> bool:
    return found is not None and math.isclose(found, expected, rel_tol=digits, abs_tol=1e-15)


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (50, 70)},
        {"shape": (61, 40), "corner": (500_170, 5_300_130), "tile": 48, "chunk": 8},
        {"shape": (9, 200), "corner": (499_930, 5_299_990), "sharded": False, "zarr_format": 2},
        {"months": ("2022-01", "2022-03", "2022-05"), "bands": ("AOT", "B08", "B02")},
    ],
)
def test_figures_are_numpys_on_whole_arrays(tmp_path: Path, other: dict[str, Any]) -> None:
    """By coordinates: xarray aligns the two, in long doubles."""
    first, second = make_spec(), make_spec(**other)
    one = make_cube(tmp_path / "a.zarr", first, make_pixels(first, 1))
    two = make_cube(tmp_path / "b.zarr", second, make_pixels(second, 2))
    shared = overlap(first, second)
    tally = Tally.empty(len(shared.periods), len(shared.bands))
    for piece in shared.pieces():
        tally += tally_piece(one, two, shared, piece)

    a, b = whole(one), whole(two)
    y, x = (np.intersect1d(a[name], b[name]) for name in "yx")
    assert shared.pixels == len(y) * len(x) > 0
    assert shared.periods == tuple(p for p in a.period.values if p in b.period.values)
    assert shared.bands == tuple(p for p in a.band.values if p in b.band.values)
    for place, period in enumerate(shared.periods):
        a_month, b_month = (
            cube.isel(time=list(cube.period.values).index(period)).sel(y=y, x=x) for cube in (a, b)
        )
        alone = {
            "first": np.zeros((len(y), len(x)), bool),
            "second": np.zeros((len(y), len(x)), bool),
        }
        for index, band in enumerate(shared.bands):
            values = [m.reflectance.sel(band=band).values for m in (a_month, b_month)]
            has = [v != NODATA for v in values]
            both = has[0] & has[1]
            left, right = (v[both].astype(np.longdouble) for v in values)
            found = Agreement.of(tally.pairs[place][index])
            assert found.pixels == both.sum() > 0
            assert found.only_first == (has[0] & ~has[1]).sum()
            assert found.only_second == (has[1] & ~has[0]).sum()
            assert close(found.bias, float((right - left).mean() * 1e-4))
            assert close(found.rmse, float(np.sqrt(((right - left) ** 2).mean()) * 1e-4))
            assert found.largest == pytest.approx(float(abs(right - left).max()) * 1e-4)
            assert found.within_one == (abs(right - left) <= 1).mean()
            r = scipy.stats.pearsonr(left.astype(float), right.astype(float)).statistic
            assert found.correlation == pytest.approx(r, abs=1e-12)
            alone["first"] |= has[0] & ~has[1]
            alone["second"] |= has[1] & ~has[0]
        counts = [m.clear_count.values for m in (a_month, b_month)]
        alone["first"] |= (counts[0] > 0) & (counts[1] == 0)
        alone["second"] |= (counts[1] > 0) & (counts[0] == 0)
        clear = ClearAgreement.of(tally.clear[place])
        assert clear.only_first == alone["first"].mean()
        assert clear.only_second == alone["second"].mean()
        assert clear.differs == (alone["first"] | alone["second"]).mean()
        assert clear.counts_differ == (counts[0] != counts[1]).mean()


STORED = st.one_of(
    st.integers(-32768, 32767), st.sampled_from([NODATA, -32767, 0, 1, 2, 9_999, 32_767])
)


def pairs_of(size: int, bands: int) -> st.SearchStrategy[np.ndarray]:
    return hn.arrays(np.int16, (2, bands, size), elements=STORED)


def loop(one: np.ndarray, two: np.ndarray) -> PairSums:
    """Sum two rows of pixels in Python integers."""
    sums = {field.name: 0 for field in dataclasses.fields(PairSums)}
    for a, b in zip(one.tolist(), two.tolist(), strict=True):
        if NODATA in (a, b):
            sums["only_first"] += a != NODATA
            sums["only_second"] += b != NODATA
            continue
        for name, value in {
            "both": 1,
            "within_one": abs(b - a) <= 1,
            "difference": b - a,
            "square": (b - a) ** 2,
            "first": a,
            "second": b,
            "first_square": a * a,
            "second_square": b * b,
            "product": a * b,
        }.items():
            sums[name] += value
        sums["largest"] = max(sums["largest"], abs(b - a))
    return PairSums(**sums)


def tally_of(pixels: np.ndarray, counts: np.ndarray) -> Tally:
    bands = pixels.shape[1]
    found = tally_period(
        pixels[0][:, None],
        np.ascontiguousarray(pixels[1][::-1, None]),  # the second cube has its bands the other way
        first_bands=tuple(range(bands)),
        second_bands=tuple(reversed(range(bands))),
        first_count=counts[0][None],
        second_count=counts[1][None],
    )
    return Tally.of_periods([found])


def test_a_value_that_was_filled_does_not_hide_another_clear_state() -> None:
    pixels = np.full((2, 1, 4), 100, np.int16)
    counts = np.array([[1, 0, 2, 0], [1, 1, 0, 0]], np.uint16)
    found = tally_of(pixels, counts).clear[0]
    assert (found.differs, found.only_first, found.only_second) == (2, 1, 1)


@given(data=st.data(), size=st.integers(0, 40), bands=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_cut_gives_the_same_digits(data: st.DataObject, size: int, bands: int) -> None:
    pixels = data.draw(pairs_of(size, bands))
    counts = data.draw(hn.arrays(np.uint16, (2, size), elements=st.integers(0, 3)))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
    edges = list(zip([0, *cuts], [*cuts, size], strict=True))
    order = data.draw(st.permutations(edges))
    cut = Tally.empty(1, bands)
    for start, stop in order:
        cut += tally_of(pixels[:, :, start:stop], counts[:, start:stop])
    assert cut == tally_of(pixels, counts)
    assert cut.pairs[0] == tuple(loop(*pixels[:, band]) for band in range(bands))
    has = pixels != NODATA
    clear = counts > 0
    alone = [
        (has[here] & ~has[there]).any(axis=0) | (clear[here] & ~clear[there])
        for here, there in ((0, 1), (1, 0))
    ]
    assert cut.clear[0] == ClearCounts(
        pixels=size,
        differs=int((alone[0] | alone[1]).sum()),
        only_first=int(alone[0].sum()),
        only_second=int(alone[1].sum()),
        counts_differ=int((counts[0] != counts[1]).sum()),
    )


@given(pixels=pairs_of(30, 1))
@example(
    pixels=np.array([[[32767] * 15 + [-32767] * 15], [[-32767] * 15 + [32767] * 15]], np.int16)
)
@settings(max_examples=60, deadline=None)
def test_ten_thousand_million_pixels_lose_nothing(pixels: np.ndarray) -> None:
    """The same pixels 2^29 times: every mean stays, no sum wraps round."""
    once = loop(*pixels[:, 0])
    many = once
    for _ in range(29):
        many += many
    assert many.both == once.both * 2**29
    few, lots = Agreement.of(once), Agreement.of(many)
    for name in ("bias", "rmse", "largest", "within_one", "correlation"):
        assert getattr(few, name) == getattr(lots, name)


@given(
    base=st.integers(-32_000, 32_000),
    steps=hn.arrays(np.int16, (2, 50), elements=st.integers(0, 3)),
)
@settings(max_examples=60, deadline=None)
def test_a_small_spread_far_from_zero_has_its_correlation(base: int, steps: np.ndarray) -> None:
    """Where a - mean is small against a, floating-point sums of squares have nothing left."""
    found = Agreement.of(loop(*(steps + np.int16(base)))).correlation
    a, b = ([Fraction(int(v)) for v in row] for row in steps)
    a_mean, b_mean = sum(a) / 50, sum(b) / 50
    together = sum((v - a_mean) * (w - b_mean) for v, w in zip(a, b, strict=True))
    spread = [sum((v - m) ** 2 for v in row) for row, m in ((a, a_mean), (b, b_mean))]
    if not all(spread):
        assert found == (None if not any(spread) else 0.0)
    else:
        assert found == pytest.approx(float(together) / math.sqrt(spread[0] * spread[1]), abs=1e-12)
        assert -1 <= found <= 1


@given(values=hn.arrays(np.int16, 40, elements=st.integers(-32_767, 32_767)))
@settings(max_examples=40, deadline=None)
def test_a_cube_agrees_with_itself(values: np.ndarray) -> None:
    found = Agreement.of(loop(values, values))
    varies = bool(np.ptp(values.astype(int)))
    assert found == Agreement(
        pixels=40, only_first=0, only_second=0, bias=0.0, rmse=0.0, largest=0.0, within_one=1.0,
        correlation=1.0 if varies else None,
    )  # fmt: skip


def test_nothing_to_compare_says_nothing() -> None:
    found = Agreement.of(PairSums(only_first=3))
    assert (found.bias, found.rmse, found.largest, found.within_one, found.correlation) == (
        None,
    ) * 5


SIDE = st.integers(1, 90)
AWAY = st.integers(-100, 100)


@given(first=st.tuples(SIDE, SIDE), second=st.tuples(SIDE, SIDE), away=st.tuples(AWAY, AWAY))
@settings(max_examples=80, deadline=None)
def test_pieces_cover_what_both_have_once(
    first: tuple[int, int], second: tuple[int, int], away: tuple[int, int]
) -> None:
    """Both cubes' pixels as a set of centres."""
    one = make_spec(shape=first)
    two = make_spec(shape=second, corner=(500_000 + away[1] * 10, 5_300_000 - away[0] * 10))
    both = {(r, c) for r in range(first[0]) for c in range(first[1])} & {
        (r + away[0], c + away[1]) for r in range(second[0]) for c in range(second[1])
    }
    if not both:
        with pytest.raises(InputError, match="no pixel in common: A covers x 500000 to "):
            overlap(one, two)
        return
    shared = overlap(one, two)
    seen = []
    for piece in shared.pieces():
        for spec, region in ((one, piece.first), (two, piece.second)):
            assert region.top >= 0
            assert region.left >= 0
            assert region.top + region.height <= spec.shape[2]
            assert region.left + region.width <= spec.shape[3]
        assert piece.second.window(two.geobox) == piece.first.window(one.geobox)
        rows, columns = piece.first.rows, piece.first.columns
        seen += [
            (r, c) for r in range(rows.start, rows.stop) for c in range(columns.start, columns.stop)
        ]
    assert len(seen) == len(set(seen)) == shared.pixels
    assert set(seen) == both


def test_large_cubes_are_compared_in_pieces_of_whole_chunks() -> None:
    spec = make_spec(shape=(3000, 2000), tile=4096, chunk=256)
    pieces = list(overlap(spec, make_spec(shape=(3000, 2000))).pieces())
    assert {(piece.first.top % 512, piece.first.left % 512) for piece in pieces} == {(0, 0)}
    assert max(piece.first.height * piece.first.width for piece in pieces) == 512**2


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"crs": "EPSG:32634"}, "different CRS: A in EPSG:32633, B in EPSG:32634; build one"),
        ({"size": 20}, r"do not lie on each other: A has 10 x 10 m .* B 20 x 20 m with a corner at"),
        ({"corner": (500_005, 5_300_000)}, r"A has 10 x 10 m with a corner at \(0, 0\), B .*\(5, 0\)"),
        ({"size": 10.001}, "do not lie on each other"),
        ({"bands": ("B05", "B06")}, "no band in common: A has B02, B04, AOT, B has B05, B06"),
        ({"months": ("2023-02", "2023-03", "2023-05", "2023-06")}, "no period in common: .* and 1 more"),
        ({"corner": (600_000, 5_300_000)}, "no pixel in common: A covers x 500000 to 500700, y 52995"),
    ],
)  # fmt: skip
def test_cubes_that_cannot_be_compared(other: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        overlap(make_spec(), make_spec(**other))


def test_one_crs_under_two_names() -> None:
    spec = make_spec()
    spelled = make_spec(crs=spec.crs.to_wkt().replace("WGS 84 / UTM zone 33N", "my grid"))
    assert str(spelled.crs) != str(spec.crs)
    assert overlap(spec, spelled).pixels == 3500


def test_what_is_not_shared_is_told() -> None:
    shared = overlap(
        make_spec(), make_spec(shape=(60, 70), bands=("B04", "B08"), months=MONTHS[1:])
    )
    assert shared.not_shared() == {
        "a": {"periods": ["2022-02"], "bands": ["B02", "AOT"], "pixels": 0},
        "b": {"periods": [], "bands": ["B08"], "pixels": 700},
    }


@pytest.fixture
def cube(tmp_path: Path) -> tuple[Path, CubeSpec]:
    spec = make_spec()
    return make_cube(tmp_path / "cube.zarr", spec, make_pixels(spec, 1)), spec


def test_a_finished_cube_is_complete(cube: tuple[Path, CubeSpec]) -> None:
    path, spec = cube
    check_complete(path, spec, **all_of(spec))


def test_incomplete_cubes_are_refused(cube: tuple[Path, CubeSpec]) -> None:
    path, spec = cube
    record = path / "ledger" / "r0001c0001.json"
    other = json.loads(record.read_text()) | {"made_from": {"settings": "others"}}
    del other["record_digest"]
    record.write_text(sealed(other))
    with pytest.raises(InputError, match="incomplete: its tiles were made with 2 different set"):
        check_complete(path, spec, **all_of(spec))
    record.write_text("{")
    with pytest.raises(InputError, match=r"ledger record .*r0001c0001.json' is damaged"):
        check_complete(path, spec, **all_of(spec))
    record.unlink()
    with pytest.raises(InputError, match=r"incomplete: 1 of its 6 tiles .* \(r0001c0001\); run"):
        check_complete(path, spec, **all_of(spec))
    (path / "ledger" / "r0000c0000.json").write_text(sealed({"tile": "r0000c0000"}))
    with pytest.raises(InputError, match=r"r0000c0000.json' is damaged \(KeyError"):
        check_complete(path, spec, **all_of(spec))
    shutil.rmtree(path / "ledger")
    with pytest.raises(InputError, match="incomplete: no tile is done"):
        check_complete(path, spec, **all_of(spec))


def test_a_lost_file_does_not_pass_for_clouds(cube: tuple[Path, CubeSpec]) -> None:
    path, spec = cube
    shard = path / "reflectance" / "c" / "0" / "0" / "1" / "2"
    shard.unlink()
    with pytest.raises(
        InputError, match=r"tile r0001c0002 of the cube .* has 1 files, its record says 2"
    ):
        check_complete(path, spec, **all_of(spec))
    # outside of what is compared it does not matter
    check_complete(path, spec, rows=slice(0, 50), columns=slice(0, 64))


def test_damaged_bytes_are_told_with_their_place(cube: tuple[Path, CubeSpec]) -> None:
    path, spec = cube
    shard = path / "reflectance" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[: len(content) - 400] = bytes(len(content) - 400)
    shard.write_bytes(bytes(content))
    shared = overlap(spec, make_spec())
    intact = make_cube(path.with_name("a.zarr"), spec, make_pixels(spec, 1))
    with pytest.raises(
        InputError,
        match=r"reflectance of 2022-02 at rows 0, columns 0 of cube B \(.*cannot be read",
    ):
        tally_piece(intact, path, shared, next(shared.pieces()))
