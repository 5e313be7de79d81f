"""Small files that are there whole or not at all."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cube.durable import flush_folders, replace_text


def test_the_text_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first, and longer", "zweite: 落叶松\n", ""):
        replace_text(path, text)
        assert path.read_bytes() == text.encode()
        assert list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_flushed_in_order(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    flushed = []

    def fsync(handle):
        place = Path(f"/proc/self/fd/{handle}").readlink()
        flushed.append((place.is_dir(), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    replace_text(path, "x")
    assert flushed == [(False, False), (True, True)]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_the_old_text_stays_if_writing_fails(tmp_path, monkeypatch, where):
    path = tmp_path / "a.txt"
    replace_text(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    if where == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    text = "\udcff" if where == "write" else "new"  # a lone surrogate is no UTF-8
    with pytest.raises((OSError, UnicodeEncodeError)):
        replace_text(path, text)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_leave_one_whole_text(tmp_path):
    path = tmp_path / "a.txt"
    texts = {str(digit) * 50_000 for digit in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: replace_text(path, text), texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be_flushed(tmp_path, monkeypatch):
    def fsync(_):
        code = codes.pop()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    codes = [errno.EIO, errno.EINVAL, errno.ENOTSUP]
    flush_folders([tmp_path, tmp_path])
    with pytest.raises(OSError, match="Input/output"):
        flush_folders([tmp_path])
