"""Records of finished tiles: what counts, what does not, and what a crash leaves behind."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import InputError
from cube.ledger import Ledger, digest, fingerprint
from cube.spec import tile_regions

REGIONS = tuple(tile_regions((50, 70), 32))


@pytest.fixture(params=[2, 3])
def ledger(tmp_path, request):
    zarr.create_group(tmp_path / "store", zarr_format=request.param)
    made = Ledger(store=tmp_path / "store", inputs="a" * 16)
    made.prepare()
    return made


def test_done_is_what_is_recorded(ledger):
    assert ledger.records() == {}
    assert ledger.pending(REGIONS) == list(REGIONS)
    ledger.record(REGIONS[4], {"scenes": ["x"], "share": 0.5})
    assert ledger.records() == {
        "r0001c0001": {"tile": "r0001c0001", "inputs": "a" * 16, "scenes": ["x"], "share": 0.5}
    }
    assert ledger.pending(REGIONS) == [*REGIONS[:4], *REGIONS[5:]]
    ledger.record(REGIONS[4], {"scenes": ["y"]})
    assert ledger.records()["r0001c0001"]["scenes"] == ["y"]
    ledger.prepare()
    assert len(ledger.records()) == 1
    assert ledger.records("scenes", "none") == {"r0001c0001": {"scenes": ["y"]}}


def test_other_inputs_do_the_tile_again(ledger):
    ledger.record(REGIONS[0], {})
    other = Ledger(store=ledger.store, inputs="b" * 16)
    assert other.records() == {}
    assert other.pending(REGIONS) == list(REGIONS)
    other.record(REGIONS[0], {})
    assert ledger.pending(REGIONS) == list(REGIONS), "the pixels are now those of other inputs"


def test_records_of_other_inputs_are_forgotten_before_their_pixels_go(ledger):
    for region in REGIONS[:2]:
        ledger.record(region, {})
    other = Ledger(store=ledger.store, inputs="b" * 16)
    for region in REGIONS[1:3]:  # one has a record, one has none
        other.forget_others(region)
        ledger.forget_others(REGIONS[0])
    assert set(ledger.records()) == {REGIONS[0].id}
    other.record(REGIONS[1], {})
    other.forget_others(REGIONS[1])
    assert set(other.records()) == {REGIONS[1].id}
    (ledger.folder / f"{REGIONS[0].id}.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        other.forget_others(REGIONS[0])


def test_a_forgotten_record_stays_so_without_power(ledger, monkeypatch):
    seen = []

    def fsync(handle):
        seen.append([path.name for path in Path(f"/proc/self/fd/{handle}").readlink().iterdir()])

    ledger.record(REGIONS[0], {})
    monkeypatch.setattr(os, "fsync", fsync)
    ledger.forget_others(REGIONS[0])
    assert seen == []
    Ledger(store=ledger.store, inputs="b" * 16).forget_others(REGIONS[0])
    assert len(seen) == 1
    assert f"{REGIONS[0].id}.json" not in seen[0]


def test_records_are_a_group_of_the_store(ledger):
    group = zarr.open_group(ledger.store, mode="r")
    assert isinstance(group["ledger"], zarr.Group)
    assert group["ledger"].metadata.zarr_format == group.metadata.zarr_format
    assert ledger.folder == ledger.store / "ledger"


def test_a_crash_before_the_record_leaves_the_tile_pending(ledger, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    ledger.record(REGIONS[1], {"attempt": 1})
    monkeypatch.setattr(os, "fsync", crash)
    for region in REGIONS[:2]:
        with pytest.raises(KeyboardInterrupt):
            ledger.record(region, {"attempt": 2})
    assert set(ledger.records()) == {REGIONS[1].id}
    assert ledger.records()[REGIONS[1].id]["attempt"] == 1
    assert ledger.pending(REGIONS)[0] == REGIONS[0]


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"tile": "r0000c0000"}', b"\xff\xfe", b"7",
     b'{"tile": "r0000c0001", "inputs": "aaaaaaaaaaaaaaaa"}'],
)  # fmt: skip
def test_a_damaged_record_is_named(ledger, text):
    path = ledger.folder / "r0000c0000.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=re.escape(f"{str(path)!r} is damaged")) as error:
        ledger.pending(REGIONS)
    assert "delete it to redo the tile" in str(error.value)
    path.unlink()
    assert ledger.pending(REGIONS) == list(REGIONS)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None)
@given(plain, plain)
def test_fingerprints_differ_on_any_change(first, second):
    is_same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (fingerprint(first) == fingerprint(second)) is is_same
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(first))


def test_fingerprints_ignore_the_order_of_keys_only():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint(1) != fingerprint("1") != fingerprint(True)
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint(float("nan"))


def test_digests_see_values_shape_and_dtype():
    block = np.arange(6, dtype=np.int16).reshape(2, 3)
    strided = np.repeat(block, 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    assert digest(block) == digest(block.copy(order="F")) == digest(strided)
    different = [block.T, block.reshape(3, 2), block.astype(np.uint16), block + 1, block[:1]]
    assert len({digest(item) for item in (block, *different)}) == 1 + len(different)
    assert digest(block, block + 1) != digest(block + 1, block)
    assert digest(block, block) != digest(block)
