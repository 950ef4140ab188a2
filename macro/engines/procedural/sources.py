"""All raw material of the procedural provider, each kind rendered by its own file."""

from macro.engines.procedural.motion import clip
from macro.engines.procedural.photo import photo
from macro.engines.procedural.pool import Pool
from macro.engines.procedural.story import Stories
from macro.engines.procedural.views import panorama, ring
from macro.engines.sources import Clip, Panorama, Picture, Ring, Story


class RenderedSources:
    """`macro.engines.sources.Sources`: pictures `size` pixels a side, at `rays` samples per pixel, 1..4."""

    def __init__(self, size: int, rays: int):
        self._size, self._rays = size, rays
        self._pool, self._stories = Pool(size, rays), Stories(size, rays)

    def photo(self, seed: int, index: int) -> Picture:
        return photo(seed, index, self._size, self._rays)

    def clip(self, seed: int, index: int) -> Clip:
        return clip(seed, index, self._size, self._rays)

    def story(self, seed: int, index: int) -> Story:
        return self._stories.story(seed, index)

    def ring(self, seed: int, index: int) -> Ring:
        return ring(seed, index, self._size, self._rays)

    def panorama(self, seed: int, index: int) -> Panorama:
        return panorama(seed, index, self._size, self._rays)

    def pooled(self, category: str, seed: int, index: int) -> Picture:
        return self._pool.pooled(category, seed, index)
