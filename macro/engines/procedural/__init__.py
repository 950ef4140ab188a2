"""The provider of stages that knows the answers: every picture is rendered from a scene graph, which is asked.

    stages = procedural.stages(procedural.Options(noise=procedural.Noise(missed=.1)))

Nothing is downloaded, nothing estimated; `noise.py` makes it err on purpose. Each file holds the stages of one kind:

    sources.py   the raw material: photo.py, motion.py, story.py, views.py, pool.py
    draw.py      write_scene, draw, redraw, without        frames.py    match, stillness, changed, narrate
    look.py      detect, tag, verify, segment, compare     pool.py      rate, compose
    write.py     caption, describe, instruct, think        story.py     rewrite
    merge.py     merge                                     motion.py    resemble, summarise
    judge.py     judge

Read next: `macro/engines/stages.py`, `macro/engines/known.py`.
"""

from dataclasses import dataclass, field

from macro.engines.procedural.draw import Drawing, write_scene
from macro.engines.procedural.frames import changed, match, narrate, stillness
from macro.engines.procedural.judge import Judging
from macro.engines.procedural.look import Looking
from macro.engines.procedural.merge import merge
from macro.engines.procedural.motion import resemble, summarise
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.pool import Pool
from macro.engines.procedural.sources import RenderedSources
from macro.engines.procedural.story import rewrite
from macro.engines.procedural.write import Writing, caption, describe
from macro.engines.stages import Stages
from macro.scenes.assets.catalog import KINDS
from macro.utils.errors import UserError

__all__ = ["Noise", "Options", "stages"]


@dataclass(frozen=True)
class Options:
    """How it is rendered, and how well it answers.

    Attributes:
        size: side of the raw material's pictures, pixels.
        rays: samples per pixel, 1..4.
        noise: how often stages err.
    """

    size: int = 128
    rays: int = 4
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f"procedural options: size={self.size} must be at least 1")
        if not 1 <= self.rays <= 4:
            raise UserError(f"procedural options: rays={self.rays} must be 1, 2, 3 or 4")


def stages(options: Options) -> Stages:
    """Every stage, answered exactly (but for `options.noise`)."""
    drawing, looking = Drawing(options.rays, options.noise), Looking(options.noise)
    writing, pool = Writing(options.noise), Pool(options.size, options.rays)
    return Stages(
        sources=RenderedSources(options.size, options.rays),
        categories=tuple(KINDS),
        write_scene=write_scene,
        draw=drawing.draw,
        detect=looking.detect,
        tag=looking.tag,
        verify=looking.verify,
        segment=looking.segment,
        redraw=drawing.redraw,
        compare=looking.compare,
        resemble=resemble,
        without=drawing.without,
        caption=caption,
        describe=describe,
        merge=merge,
        instruct=writing.instruct,
        think=writing.think,
        match=match,
        stillness=stillness,
        changed=changed,
        narrate=narrate,
        rate=pool.rate,
        compose=pool.compose,
        rewrite=rewrite,
        summarise=summarise,
        judge=Judging(options.noise).judge,
    )
