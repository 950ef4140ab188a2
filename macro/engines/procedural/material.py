"""All raw material of the procedural provider, each kind rendered by its own file."""

from macro.engines.material.types import EngineImage, Panorama, Story, Turntable, VideoClip
from macro.engines.procedural.composition import Pool
from macro.engines.procedural.photo import photo
from macro.engines.procedural.stories import Stories
from macro.engines.procedural.videos import clip
from macro.engines.procedural.views import panorama, turntable


class RenderedMaterial:
    """`macro.engines.material.types.MaterialSource`: images `size` pixels a side, at `rays` samples per pixel, 1..4."""

    def __init__(self, size: int, rays: int):
        self._size, self._rays = size, rays
        self._pool, self._stories = Pool(size, rays), Stories(size, rays)

    def photo(self, seed: int, index: int) -> EngineImage:
        return photo(seed, index, self._size, self._rays)

    def clip(self, seed: int, index: int) -> VideoClip:
        return clip(seed, index, self._size, self._rays)

    def story(self, seed: int, index: int) -> Story:
        return self._stories.story(seed, index)

    def turntable(self, seed: int, index: int) -> Turntable:
        return turntable(seed, index, self._size, self._rays)

    def panorama(self, seed: int, index: int) -> Panorama:
        return panorama(seed, index, self._size, self._rays)

    def pooled(self, category: str, seed: int, index: int) -> EngineImage:
        return self._pool.pooled(category, seed, index)
