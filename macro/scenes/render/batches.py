"""Renders any number of scenes together: images, and their exact ground truth.

A batch is split into chunks of three sizes, so that no batch length needs a new compilation. Every scene is rendered as
it would be alone. Read next: `raycast.py`, `annotate.py`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from macro.scenes.graph import Scene
from macro.scenes.ground_truth import annotate
from macro.scenes.render import raycast
from macro.sentence.spans import Truth

_CHUNKS = (16, 4, 1)


def render_all(
    scenes: Sequence[Scene], height: int, width: int, rays: int = 4, silhouettes: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of `raycast.render` for each scene in turn, with "amodal" if `silhouettes`.

    Args:
        rays: samples per pixel, 1..4.
    """
    start = 0
    while start < len(scenes):
        chunk = next(n for n in _CHUNKS if n <= len(scenes) - start)
        batch = raycast.stack([raycast.compile_scene(s) for s in scenes[start : start + chunk]])
        out = {name: np.asarray(a) for name, a in raycast.render(batch, height, width, rays, silhouettes).items()}
        yield from ({name: array[i] for name, array in out.items()} for i in range(chunk))
        start += chunk


def render_images(scenes: Sequence[Scene], size: int, rays: int = 4) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The square images of scenes, `size` pixels a side."""
    return [part["pixels"] for part in render_all(scenes, size, size, rays)]


def render_with_truth(
    scenes: Sequence[Scene], height: int, width: int, rays: int = 4
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Truth]]:
    """Each scene's image and its exact ground truth (without questions)."""
    for scene, part in zip(scenes, render_all(scenes, height, width, rays, silhouettes=True), strict=True):
        yield part["pixels"], annotate.truth_of(scene, part)
