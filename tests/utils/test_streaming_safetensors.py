"""Our piecewise safetensors files against the library's."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from macro.utils import streaming_safetensors
from macro.utils.errors import UserError
from macro.utils.streaming_safetensors import Spec, TensorReader, streaming_writer

TENSORS = {
    "whole": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.linspace(0, 1, 10).astype(ml_dtypes.bfloat16),
    "number": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
}


def specs(tensors):
    return {name: Spec(x.shape, x.dtype) for name, x in tensors.items()}


def test_the_library_reads_what_we_write(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming_safetensors, "_CHUNK", 16)  # several chunks
    path = tmp_path / "x.safetensors"
    with streaming_writer(path, specs(TENSORS), {"a": "b"}) as write:
        for layer in (2, 0, 1):
            write("whole", TENSORS["whole"][layer], layer)
        write("half", TENSORS["half"])
        write("number", TENSORS["number"])
        write("empty", TENSORS["empty"])
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    for name, x in TENSORS.items():
        np.testing.assert_array_equal(read[name], x)
    assert TensorReader(path).metadata == {"a": "b"}


def test_we_read_what_the_library_writes(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    reader = TensorReader(tmp_path / "x.safetensors")
    assert reader.specs == specs(TENSORS)
    for name, x in TENSORS.items():
        np.testing.assert_array_equal(reader[name], x)
    np.testing.assert_array_equal(reader.read("whole", 1), TENSORS["whole"][1])


def test_turned_arrays_are_brought_into_order(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming_safetensors, "_CHUNK", 16)
    x = np.random.default_rng(0).normal(size=(5, 7, 3)).transpose(2, 0, 1)
    with streaming_writer(tmp_path / "x.safetensors", specs({"x": x}), {}) as write:
        write("x", x)
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["x"], x)


def test_nothing_half_written(tmp_path):
    with pytest.raises(ValueError, match="48 of"), streaming_writer(tmp_path / "x", specs(TENSORS), {}) as write:
        write("whole", TENSORS["whole"])
    with pytest.raises(ValueError, match="announced"), streaming_writer(tmp_path / "x", specs(TENSORS), {}) as write:
        write("whole", TENSORS["whole"].T)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short"),
        (b"\x80\x04abcdefgh", "pickle"),
        (b"PK\x03\x04abcdefgh", "pickle"),
        ((2).to_bytes(8, "little") + b"no", "not JSON"),
        ((99).to_bytes(8, "little") + b"{}", "cut short"),
    ],
)
def test_damage_is_named(tmp_path, data, message):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError, match=message):
        TensorReader(tmp_path / "x")


def test_a_cut_file_is_named_by_its_tensor(tmp_path):
    save_file(TENSORS, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged at"):
        TensorReader(tmp_path / "x")
    with pytest.raises(UserError, match="cannot be read"):
        TensorReader(tmp_path / "absent")
