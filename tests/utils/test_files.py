"""A file is there as a whole, or not at all."""

import os
from pathlib import Path

import pytest

from macro.utils.config import writable_folder
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.images import load
from macro.utils.streaming_safetensors import TensorReader


def test_text_and_bytes_are_written_and_replaced(tmp_path):
    atomic_write(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa9\n"
    atomic_write(str(tmp_path / "new" / "a.txt"), b"\x00")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00"
    assert os.listdir(tmp_path / "new") == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    atomic_write(tmp_path / "a.txt", "old")

    def disk_full(self, data):
        with open(self, "wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(UserError, match=r"a.txt: cannot be written \(No space left on device\)"):
        atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file/a.txt: cannot be written"):
        atomic_write(tmp_path / "file" / "a.txt", "new")


def test_an_address_is_no_local_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for attempt in (
        lambda: atomic_write("gs://bucket/run/a.txt", "x"),
        lambda: writable_folder("gs://bucket/run"),
        lambda: TensorReader(Path("gs://bucket/weights.safetensors")),
        lambda: load("s3://bucket/a.png"),
    ):
        with pytest.raises(UserError, match=r"^(gs|s3)://?bucket/\S+: not a path on this machine's disks"):
            attempt()
    assert os.listdir(tmp_path) == []
