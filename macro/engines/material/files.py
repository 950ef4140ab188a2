"""Lists files, maps (seed, index) to one of them, and reads images.

Read next: `folder.py`.
"""

import dataclasses
import hashlib
import heapq
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from macro.engines.material.types import EngineImage
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError
from macro.utils.streams import stream

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")

MOST = 1_000_000  # files of a kind; a longer list would cost every worker gigabytes


@dataclass(frozen=True)
class Files:
    """Files of one kind: `names` below `folder`, sorted."""

    kind: str
    folder: Path
    names: tuple[str, ...]

    def at(self, seed: int, index: int) -> Path:
        """Item `index` of `seed`: every file once in a seeded order, then all again in another order."""
        return self.folder / self.names[place(seed, self.kind, index, len(self.names))]


def find(kind: str, where: Path, suffixes: tuple[str, ...]) -> Files:
    """The files with these suffixes in a folder and below it, or the one file that `where` is.

    Hidden files are skipped, links to folders not followed. Of more than `MOST` files the first are taken.

    Raises:
        UserError: a folder cannot be read.
    """
    if where.is_file():
        fits = where.suffix.lower() in suffixes
        return Files(kind, where.parent, (where.name,) if fits else ())
    names = tuple(itertools.islice(_below(where, "", suffixes), MOST + 1))
    if len(names) > MOST:
        warnings.warn(f"{where}: more than {MOST:,} files; the first {MOST:,} are used", stacklevel=2)
    return Files(kind, where, names[:MOST])


def _below(root: Path, inside: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths relative to `root`, folder by folder; keeps no more of a folder's names in memory than can be used."""
    try:
        with os.scandir(root / inside) as entries:
            fitting = (
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir(follow_symlinks=False) or os.path.splitext(entry.name)[1].lower() in suffixes)
            )
            found = heapq.nsmallest(MOST + 1, fitting)
    except OSError as error:
        raise UserError(f"{root / inside}: cannot be looked into ({error.strerror}); check its permissions") from None
    for name, is_folder in found:
        path = os.path.join(inside, name)
        if is_folder:
            yield from _below(root, path, suffixes)
        else:
            yield path


# ---- splits ----

SPLITS = ("train", "eval")
_SAMPLED = 1 << 16  # bytes at the start and the end of a file that its hash is of: videos are large


def of_split(found: Files, split: str, eval_share: float) -> Files:
    """The files of a split. A file's content alone decides, so a copy or another name of it is in the same split."""
    names = tuple(n for n in found.names if (fraction_of(found.folder / n) < eval_share) == (split == "eval"))
    return dataclasses.replace(found, names=names)


def fraction_of(path: Path) -> float:
    """A number in 0..1 that follows from the content of a file: its length, first and last bytes."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(_SAMPLED)
            file.seek(max(length - _SAMPLED, 0))
            content = head + file.read(_SAMPLED) + str(length).encode()
    except OSError:
        content = path.name.encode()  # nothing can be read of it in either split
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) / 2**64


# ---- a seeded order of any length, without storing it ----


def place(seed: int, purpose: str, index: int, count: int) -> int:
    """Position of item `index` among `count`: each pass through 0 .. count - 1 is another permutation.

    A Feistel network over the next power of 4, iterated until the result is below `count`; needs no list.
    """
    turn, at = divmod(index, count)
    keys = [int(key) for key in stream(seed, turn, purpose).integers(2**32, size=6)]
    bits = max(1, ((count - 1).bit_length() + 1) // 2)
    while True:
        left, right = at >> bits, at & ((1 << bits) - 1)
        for key in keys:
            left, right = right, left ^ (_mixed(right, key) & ((1 << bits) - 1))
        at = left << bits | right
        if at < count:
            return at


def _mixed(value: int, key: int) -> int:
    """A number below 2**32 whose low bits depend on all bits of both."""
    value = (value ^ key) * 0x9E3779B1 & 0xFFFFFFFF
    value = (value ^ value >> 15) * 0x85EBCA77 & 0xFFFFFFFF
    return value ^ value >> 13


# ---- reading ----


def resolve_sibling(root: Path, path: Path, name: str) -> Path:
    """Resolves a file name in a file of the material, relative to that file.

    Raises:
        ItemError: it lies outside `root` (links are followed), or does not exist.
    """
    there = path.parent / name
    try:
        inside = there.resolve().is_relative_to(root.resolve())
        if inside and there.is_file():
            return there
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL in it
        raise ItemError(f"{path}: names {name!r:.80}, which can be no file's name") from None
    if not inside:
        raise ItemError(f"{path}: names {name!r:.80}, which lies outside {root}")
    raise ItemError(f"{path}: names {name!r:.80}, which is not there")


def pixels_of(path: Path) -> image_io.Pixels:
    """The pixels of an image file.

    Raises:
        ItemError: as `macro.utils.images.load`.
    """
    try:
        return image_io.load(path)
    except UserError as error:
        raise ItemError(str(error)) from None


def read_image(path: Path, longest: int) -> EngineImage:
    """An image file, scaled down if its longer side exceeds `longest` pixels; raises as `pixels_of`."""
    return EngineImage(fitted(pixels_of(path), longest), path=str(path))


def fitted(pixels: image_io.Pixels, longest: int) -> image_io.Pixels:
    """The image with its aspect kept, its longer side at most `longest` pixels."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels
    return image_io.resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
