"""Images for tests, in batches as the library's own: every other shape would compile the renderer once more."""

import numpy as np

from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import Camera, Light, Scene, Subject, Surroundings
from macro.scenes.render.raycast import render
from macro.scenes.render.scene_compiler import compile_scene, stack

PLAIN = Surroundings((0.8,) * 3, (0.8,) * 3, "plain", (0.9,) * 3, (0.9,) * 3, "studio")
AT_ONCE = 16


def alone(kind: str, texture="plain", decal=None, yaw=0.7, pose=0.5) -> Scene:
    """A red, white and blue subject on grey ground."""
    palette = (COLOURS["red"], COLOURS["white"], COLOURS["blue"])
    subject = Subject(kind, palette, texture, decal, 1.0, (0.0, 0.0), 0.0, yaw, pose, 1, 0)
    camera = Camera("perspective", (0.0, 1.1, -4.8), (0.0, 0.5, 0.0), 0.36)
    return Scene((subject,), camera, Light(0.6, 0.9, 0.2, 1.0), PLAIN, 0)


def _in_batches(scenes, draw) -> list:
    compiled = [compile_scene(scene) for scene in scenes]
    compiled += compiled[-1:] * (-len(compiled) % AT_ONCE)
    return [draw(stack(compiled[i : i + AT_ONCE])) for i in range(0, len(compiled), AT_ONCE)]


def images(scenes, height=64, width=64, samples=1) -> dict[str, np.ndarray]:
    """`render` of any number of scenes."""
    parts = _in_batches(scenes, lambda batch: render(batch, height, width, samples))
    return {key: np.concatenate([part[key] for part in parts])[: len(scenes)] for key in parts[0]}


def whole_masks(scenes, height=64, width=64) -> np.ndarray:
    """The silhouettes of any number of scenes."""
    return np.concatenate(_in_batches(scenes, lambda batch: render(batch, height, width, 1, True)["amodal"]))[
        : len(scenes)
    ]
