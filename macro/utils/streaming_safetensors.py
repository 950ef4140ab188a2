"""Safetensors files larger than memory: read one tensor at a time, written slice by slice.

The library `safetensors` writes only tensors that are all in memory. The format: eight bytes with the header's length,
a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes in any order without gaps.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import ml_dtypes
import numpy as np

from macro.utils.errors import UserError
from macro.utils.files import atomic_path, local

DTYPES = {
    "F64": np.dtype("float64"), "F32": np.dtype("float32"), "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype("int64"), "I32": np.dtype("int32"),
    "I16": np.dtype("int16"), "I8": np.dtype("int8"), "U8": np.dtype("uint8"), "BOOL": np.dtype("bool"),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

_CHUNK = 1 << 24  # bytes that are transposed or copied at a time


class Spec(NamedTuple):
    """Shape and dtype of a tensor that is not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


class TensorReader(Mapping):
    """The tensors of one file by name; `specs` has their shapes and types, indexing reads one."""

    def __init__(self, path: str | os.PathLike):
        """
        Raises:
            UserError: no such file, a pickle, or a file that is truncated or damaged.
        """
        self.path = local(path)
        self.specs: dict[str, Spec] = {}
        self.metadata: dict[str, str] = {}
        self._starts: dict[str, int] = {}
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                first = file.read(8)
                if first[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
                    raise UserError(
                        f"{self.path}: a pickle, which could run any program; convert it to safetensors first"
                    )
                length = int.from_bytes(first, "little")
                if len(first) < 8 or length > size - 8:
                    raise UserError(f"{self.path}: cut short or no safetensors file; copy or download it again")
                header = json.loads(file.read(length))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        except ValueError:
            raise UserError(f"{self.path}: no safetensors file (its header is not JSON); copy it again") from None
        self._read_header(header, 8 + length, size)

    def _read_header(self, header: dict, base: int, size: int) -> None:
        self.metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise UserError(f"{self.path}: {name} is of type {entry['dtype']}; known are {', '.join(DTYPES)}")
            spec = Spec(tuple(entry["shape"]), DTYPES[entry["dtype"]])
            start, end = entry["data_offsets"]
            if end - start != spec.nbytes or base + end > size:
                raise UserError(
                    f"{self.path}: cut short or damaged at {name} ({size} bytes, {base + end} needed); "
                    "copy or download it again"
                )
            self.specs[name], self._starts[name] = spec, base + start

    def __getitem__(self, name: str) -> np.ndarray:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def read(self, name: str, index: int | None = None) -> np.ndarray:
        """One tensor, or only its part `[index]` along the first axis."""
        spec, start = self.specs[name], self._starts[name]
        shape = spec.shape
        if index is not None:
            shape = shape[1:]
            start += index * prod(shape) * spec.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(start)
            return np.fromfile(file, spec.dtype, prod(shape)).reshape(shape)

    def view(self, name: str) -> np.ndarray:
        """One tensor as a memory map: only what is accessed is read."""
        spec, start = self.specs[name], self._starts[name]
        if not spec.size:
            return np.zeros(spec.shape, spec.dtype)
        return np.memmap(self.path, spec.dtype, "r", start, spec.shape or (1,)).reshape(spec.shape)


@contextlib.contextmanager
def streaming_writer(path: str | os.PathLike, specs: Mapping[str, Spec], metadata: Mapping[str, str]):
    """Opens a file whose tensors are then written in any order, piece by piece; it appears only when complete.

    Yields:
        write(name, array, index=None): writes a tensor, or its part `[index]` along the first axis. The array
        may be a transposed view: it is made contiguous chunk by chunk.

    Raises:
        UserError: the path cannot be written. ValueError: a wrong shape or dtype, or a piece that was not written.
    """
    header, at = {"__metadata__": dict(metadata)}, 0
    for name, spec in specs.items():
        header[name] = {
            "dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, at + spec.nbytes],
        }  # fmt: skip
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires tensors to begin at multiples of 8
    base, written = 8 + len(text), 0

    def write(name: str, array: np.ndarray, index: int | None = None) -> None:
        nonlocal written
        spec = specs[name]
        shape = spec.shape if index is None else spec.shape[1:]
        if array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(f"{name}: {array.dtype}{array.shape}, but {spec.dtype}{shape} was announced")
        start = header[name]["data_offsets"][0] + (index or 0) * array.nbytes
        file.seek(base + start)
        for part in _chunks(array):
            np.ascontiguousarray(part).tofile(file)
        written += array.nbytes

    with atomic_path(path) as half:
        with half.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            yield write
        if written != at:
            raise ValueError(f"{path}: {written} of {at} bytes were written")


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in chunks along its first axis, each small enough to copy."""
    if array.ndim == 0 or array.flags.c_contiguous:
        yield array
        return
    rows = max(1, _CHUNK // max(array.nbytes // len(array), 1))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
