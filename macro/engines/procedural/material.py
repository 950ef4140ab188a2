"""Rendered raw material: images, turntables, panoramas here; videos, stories and pools in other files."""

from collections.abc import Iterator, Mapping

import numpy as np

from macro.engines.material.types import EngineImage, Panorama, Story, Turntable, VideoClip
from macro.engines.procedural.composition import pooled_scene
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.stories import story
from macro.engines.procedural.videos import clip
from macro.scenes.graph import Scene
from macro.scenes.language import captions
from macro.scenes.layout import layout_sampler
from macro.scenes.render import cameras
from macro.scenes.render.batches import render_all

_PHOTO_COUNTS = (3, 4, 5, 6, 7, 8)  # subjects: INSET's samples have three to eight images
_TURNTABLE_COUNTS, _ODDS = (1, 2, 3), (0.6, 0.25, 0.15)  # subjects on the turntable


class Rendered(Mapping):
    """View name -> image, rendered on first access: a sample uses few of a turntable's 38 views."""

    def __init__(self, scenes: Mapping[str, Scene], size: int, rays: int):
        self._scenes, self._size, self._rays = dict(scenes), size, rays
        self._drawn: dict[str, EngineImage] = {}

    def __getitem__(self, name: str) -> EngineImage:
        if name not in self._drawn:
            self._drawn[name] = drawing([self._scenes[name]], [self._size], self._rays)[0]
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scenes)

    def __len__(self) -> int:
        return len(self._scenes)


class RenderedMaterial:
    """`macro.engines.material.types.MaterialSource`: images `size` pixels a side, at `rays` samples per pixel, 1..4."""

    def __init__(self, size: int, rays: int):
        self._size, self._rays = size, rays

    def photo(self, seed: int, index: int) -> EngineImage:
        """An image of three to eight subjects."""
        rng = np.random.default_rng([seed, index, 6])
        scene = layout_sampler.sample_scene(rng, int(rng.choice(_PHOTO_COUNTS)))
        return self._drawn(captions.in_order_of_mention(scene, rng))

    def clip(self, seed: int, index: int) -> VideoClip:
        return clip(seed, index, self._size, self._rays)

    def story(self, seed: int, index: int) -> Story:
        return story(seed, index, self._size, self._rays)

    def turntable(self, seed: int, index: int) -> Turntable:
        """One to three subjects in a studio, from all of `macro.scenes.render.cameras.VIEWS`."""
        rng = np.random.default_rng([seed, index, 7])
        scene = cameras.turntable(rng, int(rng.choice(_TURNTABLE_COUNTS, p=_ODDS)))
        elevation = float(rng.uniform(5.0, 30.0))
        return Turntable(f"object {index}", Rendered(cameras.around(scene, elevation), self._size, self._rays))

    def panorama(self, seed: int, index: int) -> Panorama:
        """A place or room with eight to twelve subjects around the camera, 2 `size` pixels high: a view 90 degrees wide
        cut from it is about as sharp as an image of `size` pixels.
        """
        rng = np.random.default_rng([seed, index, 8])
        scene = cameras.place(rng, int(rng.integers(8, 13)))
        pixels = next(render_all([scene], 2 * self._size, 4 * self._size, self._rays))["pixels"]
        return Panorama(f"place {index}", EngineImage(pixels, scene))

    def pooled(self, category: str, seed: int, index: int) -> EngineImage:
        return self._drawn(pooled_scene(category, seed, index))

    def _drawn(self, scene: Scene) -> EngineImage:
        return drawing([scene], [self._size], self._rays)[0]
