"""`FolderMaterial`: the engines' raw material (`types.py`) from a folder; `__init__.py` shows its layout.

The constructor only checks that the folder exists; a kind's files are listed on the first request for one. Item
`index` of `seed` is a file chosen by a seeded order over them, and depends on the folder, seed and index alone.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from macro.engines.material import documents, files, meshes, turntables, videos
from macro.engines.material.types import CATEGORIES, EngineImage, Panorama, Story, Turntable, VideoClip
from macro.utils.errors import ItemError, UserError, check_range
from macro.utils.images import resize
from macro.utils.streams import stream

SUFFIXES = {
    "photos": files.IMAGES,
    "videos": videos.VIDEOS,
    "stories": (".json",),
    "meshes": meshes.MESHES,
    "panoramas": files.IMAGES,
} | {f"pool/{category}": files.IMAGES for category in CATEGORIES}


@dataclass(frozen=True)
class Options:
    """How files are read.

    Attributes:
        longest: side in pixels to which larger images are scaled down.
        frame_longest: the same for frames of videos, of which many are held in memory.
        rate, seconds: frames per second read from a video, and how many seconds of a long one.
        panorama: width in pixels to which larger panoramas are scaled down; even.
        ring: side in pixels of views of a mesh, from `samples` rays per pixel (a square number).
        up: which axis of a mesh is up, "y" (its front looks along z) or "z" (along -y).
        eval_share: share of the files that belong to the split "eval", 0..1; the others are for "train".
    """

    longest: int = 1024
    frame_longest: int = 512
    rate: float = 2.0
    seconds: float = 90.0
    panorama: int = 2048
    ring: int = 256
    samples: int = 4
    up: str = "y"
    eval_share: float = 0.05

    def __post_init__(self):
        for name in ("longest", "frame_longest", "rate", "seconds", "panorama", "ring", "samples"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"material options: {name}={getattr(self, name)!r} must be above 0")
        if self.panorama % 2:
            raise UserError(f"material options: panorama={self.panorama} must be even; it is twice as wide as high")
        if self.up not in ("y", "z"):
            raise UserError(f"material options: up={self.up!r} must be 'y' or 'z'")
        check_range("material options", self, 0, 1, "eval_share")


DEFAULT = Options()


class FolderMaterial:
    """Raw material from a folder, or from one file."""

    def __init__(self, root: str | os.PathLike, options: Options = DEFAULT, split: str | None = None):
        """
        Args:
            split: "train" or "eval": only the files of that split; None: all.

        Raises:
            UserError: there is no such folder or file, or no such split.
        """
        if split not in (None, *files.SPLITS):
            raise UserError(f"--split={split}: material is divided into {' and '.join(files.SPLITS)}")
        self.root, self.options, self.split = Path(root), options, split
        if not self.root.exists():
            raise UserError(f"{root}: there is no such folder of material; check the path")
        self._found: dict[str, files.Files] = {}

    def __reduce__(self):
        # Lists of files may be long: a copy in another process lists them itself.
        return FolderMaterial, (self.root, self.options, self.split)

    def photo(self, seed: int, index: int) -> EngineImage:
        return files.read_image(self._files("photos").at(seed, index), self.options.longest)

    def pooled(self, category: str, seed: int, index: int) -> EngineImage:
        if category not in CATEGORIES:
            raise UserError(f"category {category!r}: there are {', '.join(CATEGORIES)}")
        return files.read_image(self._files(f"pool/{category}").at(seed, index), self.options.longest)

    def clip(self, seed: int, index: int) -> VideoClip:
        """Long videos are read from a position that follows from (seed, index)."""
        path, options = self._files("videos").at(seed, index), self.options
        where = float(stream(seed, index, "clip").random())
        return videos.read_clip(path, float(options.rate), float(options.seconds), options.frame_longest, where)

    def story(self, seed: int, index: int) -> Story:
        found = self._files("stories")
        return documents.read_story(found.at(seed, index), found.folder, self.options.longest)

    def turntable(self, seed: int, index: int) -> Turntable:
        found = self._files("meshes")
        path = found.at(seed, index)
        pieces = meshes.read_mesh(path, found.folder, self.options.up)
        return Turntable(path.stem, turntables.Views(pieces, self.options.ring, self.options.samples, path))

    def panorama(self, seed: int, index: int) -> Panorama:
        path = self._files("panoramas").at(seed, index)
        pixels = files.pixels_of(path)
        _check_sphere(path, pixels)
        width = min(self.options.panorama, pixels.shape[1] // 2 * 2)
        return Panorama(path.stem, EngineImage(resize(pixels, (width // 2, width)), path=str(path)))

    def _files(self, kind: str) -> files.Files:
        """The files of a kind.

        Raises:
            UserError: there are none.
        """
        if kind not in self._found:
            sorted_by_kind = any((self.root / name).is_dir() for name in (*SUFFIXES, "pool"))
            where = self.root / kind if sorted_by_kind else self.root
            found = files.Files(kind, where, ())
            if where.exists() and (sorted_by_kind or not kind.startswith("pool/")):
                found = files.find(kind, where, SUFFIXES[kind])
            if not found.names:
                suffixes = " ".join(SUFFIXES[kind])
                raise UserError(f"{self.root}: no material for {kind}; put files ({suffixes}) into {self.root / kind}")
            if self.split:
                every, found = len(found.names), files.of_split(found, self.split, self.options.eval_share)
                if not found.names:
                    raise UserError(
                        f"{self.root}: none of the {every} files for {kind} falls to split {self.split}; add files, or "
                        f"change --material.eval_share={self.options.eval_share:g}"
                    )
            self._found[kind] = found
        return self._found[kind]


def _check_sphere(path: Path, pixels: np.ndarray) -> None:
    """Checks that a panorama is twice as wide as high, and continuous from its right edge to its left."""
    height, width = pixels.shape[:2]
    if abs(width - 2 * height) > max(2, 0.01 * width):
        raise ItemError(f"{path}: {width} x {height}; an equirectangular panorama is twice as wide as high")
    columns = pixels.astype(np.int16)
    steps = np.abs(np.diff(columns, axis=1)).mean((0, 2))
    seam = np.abs(columns[:, 0] - columns[:, -1]).mean()
    if seam > 3 * np.quantile(steps, 0.99) + 6:
        raise ItemError(f"{path}: its left and right edges do not meet; a wide photo, not a 360 panorama")
