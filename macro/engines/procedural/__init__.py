"""The provider that answers stages from scene graphs: it renders every image, so its answers are exact.

    provider = procedural.provider(procedural.Options(noise=procedural.Noise(missed=.1)))

Nothing is downloaded or estimated; `noise.py` adds errors on purpose. Each file holds the stages of one kind:

    material.py       images, turntables, panoramas; with videos.py, stories.py and composition.py all raw material
    generators.py     write_scene, draw, novel_view, remove_subjects
    vision.py         detect, tag, verify, segment, text_similarity
    captions.py       caption, describe, instruct, think
    interleaving.py   merge
    frame_pairs.py    match, static_share, changed, narrate
    videos.py         image_similarity, summarise
    composition.py    rate, compose
    stories.py        rewrite
    judge.py          judge

Read next: `macro/engines/provider.py`, `macro/engines/ground_truth.py`.
"""

import functools
import math
from dataclasses import dataclass, field

from macro.engines.procedural.captions import Writing, caption, describe
from macro.engines.procedural.composition import compose, rate
from macro.engines.procedural.frame_pairs import changed, match, narrate, static_share
from macro.engines.procedural.generators import Drawing, write_scene
from macro.engines.procedural.interleaving import merge
from macro.engines.procedural.judge import Judging
from macro.engines.procedural.material import RenderedMaterial
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.stories import rewrite
from macro.engines.procedural.videos import image_similarity, summarise
from macro.engines.procedural.vision import Looking
from macro.engines.provider import Provider
from macro.scenes.assets.catalog import KINDS
from macro.utils.errors import check_range

__all__ = ["Noise", "Options", "provider"]


@dataclass(frozen=True)
class Options:
    """How images are rendered, and how exact the answers are.

    Attributes:
        size: side of the raw material's images, pixels.
        rays: samples per pixel, 1..4.
        noise: error rates of the stages.
    """

    size: int = 128
    rays: int = 4
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self):
        check_range("procedural options", self, 1, math.inf, "size")
        check_range("procedural options", self, 1, 4, "rays")


def provider(options: Options) -> Provider:
    """The provider of every stage, exact but for `options.noise`."""
    drawing, looking, writing = Drawing(options.rays, options.noise), Looking(options.noise), Writing(options.noise)
    stages = (
        write_scene, drawing.draw, drawing.novel_view, drawing.remove_subjects, looking.detect, looking.tag,
        looking.verify, looking.segment, looking.text_similarity, image_similarity, caption, describe, merge,
        writing.instruct, writing.think, match, static_share, changed, narrate, rate, rewrite, summarise,
        Judging(options.noise).judge,
    )  # fmt: skip
    return Provider(
        sources=RenderedMaterial(options.size, options.rays),
        categories=tuple(KINDS),
        compose=functools.partial(compose, rays=options.rays),
        **{stage.__name__: stage for stage in stages},
    )
