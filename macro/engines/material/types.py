"""The raw material of the data engines: images, clips, stories, turntables, panoramas, pools by category.

A source returns item (seed, index) of each kind, always the same one. `procedural/material.py` renders them, with exact
ground truth; `material/` reads them from files. Read next: `provider.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from macro.scenes.graph import Scene

CATEGORIES = ("human", "cloth", "object", "scene", "style")  # of MACRO's references


@dataclass(frozen=True, eq=False)
class EngineImage:
    """Pixels uint8[h, w, 3], the scene they were rendered from if known, the file they came from.

    `path` is for messages: it may be a video or a mesh, so samples carry the pixels alone.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    scene: Scene | None = None
    path: str | None = None


class Lazy(Sequence):
    """A list whose entries are made on access: one at a time by index, or all at once by iteration.

    Can be pickled if `make` can.

    Args:
        length: number of entries.
        make: indices, from 0 -> the entries by index; it may return others as well.
    """

    def __init__(self, length: int, make: Callable[[Sequence[int]], Mapping[int, Any]]):
        self._length, self._make = length, make
        self._made: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int | slice) -> Any:
        found = range(self._length)[place]
        return self._at(found) if isinstance(place, slice) else self._at([found])[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._at(range(self._length)))

    def _at(self, places: Sequence[int]) -> list:
        missing = [place for place in places if place not in self._made]
        if missing:
            self._made |= self._make(missing)
        return [self._made[place] for place in places]


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Frames in order, and `seconds` of each from the start.

    `small` are thumbnails of all frames, if they are cheaper to get than `frames`.
    """

    frames: Sequence[EngineImage]
    seconds: tuple[float, ...]
    small: Sequence[EngineImage] | None = None


@dataclass(frozen=True, eq=False)
class Page:
    """A page of a story: its text, its image, and, if known, the names of the characters in it."""

    text: str
    image: EngineImage
    characters: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Story:
    """Pages in order; `distractors` are images between them that belong to no page: (index, image).

    Index p is before page p, from 0. `casts` holds the characters of each page if known before it is drawn.
    """

    title: str
    pages: Sequence[Page]
    distractors: Sequence[tuple[int, EngineImage]] = ()
    casts: tuple[tuple[str, ...], ...] = ()

    def cast(self, page: int) -> tuple[str, ...]:
        """Names of the characters on a page, if known."""
        return self.casts[page] if self.casts else self.pages[page].characters


@dataclass(frozen=True, eq=False)
class Turntable:
    """One object seen from all around: view name -> image.

    Names are those of `macro.scenes.render.cameras.VIEWS`: "h000" to "h345" (24, 15 degrees apart), "low000" to
    "low330" (12), "top", "bottom"; angle 0 shows its front, angles grow as the camera moves counter-clockwise,
    seen from above.
    """

    name: str
    views: Mapping[str, EngineImage]


@dataclass(frozen=True, eq=False)
class Panorama:
    """A full sphere from one point: `pixels` equirectangular, 2 : 1, its middle column looks along yaw 0.

    Yaw grows to the right, pitch upwards.
    """

    name: str
    image: EngineImage


@runtime_checkable
class MaterialSource(Protocol):
    """Raw material by (seed, index).

    Every method raises UserError if there is no such material at all (no folder given for it); `ItemError` if
    this one item is unusable.
    """

    def photo(self, seed: int, index: int) -> EngineImage: ...

    def clip(self, seed: int, index: int) -> VideoClip: ...

    def story(self, seed: int, index: int) -> Story: ...

    def turntable(self, seed: int, index: int) -> Turntable: ...

    def panorama(self, seed: int, index: int) -> Panorama: ...

    def pooled(self, category: str, seed: int, index: int) -> EngineImage:
        """A reference of a MACRO category: "human", "cloth", "object", "scene" or "style"."""
        ...
