"""Ground truth of images whose scene is known: truth, subjects' labels, and which subject a region shows.

The procedural provider answers from it, and engines take from it what real images lack: `Sentence.truth`.
Read next: `procedural/`, `music.py`.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int8, UInt8

from macro.engines.material.types import EngineImage
from macro.engines.provider import Box, Region
from macro.scenes.graph import Scene
from macro.scenes.ground_truth import annotate
from macro.scenes.ground_truth.relations import centroids
from macro.scenes.language.lexicon import ORDINALS, distinct_nouns
from macro.scenes.layout.placement import supports_of
from macro.scenes.render.batches import render_with_truth
from macro.sentence.spans import Truth

_KEPT = 256  # truths of this many images are cached: consecutive steps use the same images
_TRUTHS: OrderedDict[tuple[Scene, int, int], Truth] = OrderedDict()


def ground_truths(images: Sequence[EngineImage]) -> list[Truth]:
    """The truth (without questions) of images that have a scene; subject i of a scene has number i + 1."""
    keys = [(image.scene, *image.pixels.shape[:2]) for image in images]
    found = {key: _TRUTHS[key] for key in keys if key in _TRUTHS}
    missing = [key for key in dict.fromkeys(keys) if key not in found]
    for size in dict.fromkeys(key[1:] for key in missing):
        scenes = [key[0] for key in missing if key[1:] == size]
        for scene, (_, truth) in zip(scenes, render_with_truth(scenes, *size, rays=1), strict=True):
            found[scene, *size] = truth
    _keep(found)
    return [found[key] for key in keys]


def render_known(scenes: Sequence[Scene], size: int, rays: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The square images of scenes; `ground_truths` knows them from now on."""
    drawn = list(render_with_truth(scenes, size, size, rays))
    _keep({(scene, size, size): truth for scene, (_, truth) in zip(scenes, drawn, strict=True)})
    return [pixels for pixels, _ in drawn]


def _keep(found: Mapping[tuple[Scene, int, int], Truth]) -> None:
    for key, truth in found.items():
        _TRUTHS[key] = truth
        _TRUTHS.move_to_end(key)
    while len(_TRUTHS) > _KEPT:
        _TRUTHS.popitem(last=False)


def known_truth(image: EngineImage) -> Truth | None:
    """The truth of an image that has a scene."""
    return None if image.scene is None else ground_truths([image])[0]


def grid_of(truth: Truth, options: Any) -> tuple[Int8[np.ndarray, "8 8"], int]:
    """The layout grid of a truth by `options.K` and `options.region`, and how many subjects have no cell in it."""
    grid = annotate.layout(truth.masks, truth.boxes, options.K, options.region)
    return grid, len(truth.kinds) - len(np.setdiff1d(grid, [0]))


def labels(truth: Truth) -> tuple[str, ...]:
    """Each subject's name, all different: "dog"; "red dog" where there are two; if both are red, "second dog from the
    left"."""
    across, found = [float(x) for x, _ in centroids(truth.masks)], []
    for i, (noun, kind) in enumerate(zip(distinct_nouns(truth), truth.kinds, strict=True)):
        before = sum(k == kind and (across[j], j) < (across[i], i) for j, k in enumerate(truth.kinds))
        found.append(noun or f"{ORDINALS[before]} {kind} from the left")
    return tuple(found)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    common = max(across, 0.0) * max(down, 0.0)
    both = Region("", first).area + Region("", second).area - common
    return common / both if both > 0 else 0.0


def box_of(truth: Truth, subject: int) -> Box:
    """The box of subject `subject`, counted from 0."""
    return tuple(float(edge) for edge in truth.boxes[subject])


def subject_at(truth: Truth, region: Region) -> int | None:
    """The subject (from 0) that a region shows: the one whose box overlaps it most, None if none overlaps it."""
    shares = [overlap(box_of(truth, i), region.box) for i in range(len(truth.kinds))]
    return int(np.argmax(shares)) if shares and max(shares) > 0 else None


def scene_subset(scene: Scene, subjects: Sequence[int]) -> Scene:
    """The scene with only these subjects (from 0), renumbered in this order; riders of a removed one are put down."""
    new = {old: i for i, old in enumerate(subjects)}
    resting = supports_of(scene.subjects)
    kept = []
    for old in subjects:
        left_alone = old in resting and resting[old] not in new
        subject = replace(scene.subjects[old], number=new[old] + 1)
        kept.append(replace(subject, height=0.0) if left_alone else subject)
    return replace(scene, subjects=tuple(kept))
