"""Rendered raw material for spatial samples: objects seen from all round, and panoramas of places."""

from collections.abc import Iterator, Mapping

import numpy as np

from macro.engines.material.types import EngineImage, Panorama, Turntable
from macro.engines.procedural.generators import drawing
from macro.scenes.graph import Scene
from macro.scenes.render import cameras
from macro.scenes.render.batches import render_all

_COUNTS, _ODDS = (1, 2, 3), (0.6, 0.25, 0.15)  # subjects on the turntable


class Rendered(Mapping):
    """View name -> image, drawn when it is first asked for: a sample looks at few of a ring's 38 views."""

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


def turntable(seed: int, index: int, size: int, rays: int) -> Turntable:
    """One to three subjects in a studio from all `scenes.views.VIEWS`, `size` pixels a side."""
    rng = np.random.default_rng([seed, index, 7])
    scene = cameras.turntable(rng, int(rng.choice(_COUNTS, p=_ODDS)))
    elevation = float(rng.uniform(5.0, 30.0))
    return Turntable(f"object {index}", Rendered(cameras.around(scene, elevation), size, rays))


def panorama(seed: int, index: int, size: int, rays: int) -> Panorama:
    """A place or room with eight to twelve subjects all round, 2 `size` pixels high: a view 90 degrees wide that is
    taken from it is about as sharp as an image of `size` pixels.
    """
    rng = np.random.default_rng([seed, index, 8])
    scene = cameras.place(rng, int(rng.integers(8, 13)))
    pixels = next(render_all([scene], 2 * size, 4 * size, rays))["pixels"]
    return Panorama(f"place {index}", EngineImage(pixels, scene))
