from pathlib import Path

import pytest

from model.durable import named_by_hash, remove_others, replace_file, write_by_hash


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_arrays_that_are_named_stay(tmp_path: Path) -> None:
    (tmp_path / "weights-other.txt").write_text("")
    old, new = (write_by_hash(tmp_path, "weights", data) for data in (b"1", b"2"))
    assert (tmp_path / named_by_hash("weights", old)).read_bytes() == b"1"
    remove_others(tmp_path, "weights", new)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"weights-other.txt", named_by_hash("weights", new)}


@pytest.mark.parametrize("digest", ["", "../" * 21 + "x", "A" * 64, "f" * 63])
def test_a_path_is_no_hash(digest: str) -> None:
    with pytest.raises(ValueError, match="is no hash of a file"):
        named_by_hash("state", digest)
