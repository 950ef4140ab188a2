"""The provider of stages that knows the answers: every picture is rendered from a scene graph, which is asked.

    stages = procedural.stages(procedural.Options(noise=Noise(missed=.1)))

Nothing is downloaded, nothing estimated; `noise.py` makes it err on purpose. Each file holds the stages of one kind:
`draw.py`, `look.py`, `write.py`. Read next: `macro/engines/stages.py`, `macro/engines/known.py`.
"""

from dataclasses import dataclass, field

from macro.engines.procedural.draw import Drawing, write_scene
from macro.engines.procedural.look import Looking
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.write import Writing, caption, describe
from macro.engines.stages import Stages
from macro.scenes.kinds import KINDS
from macro.utils.errors import UserError

__all__ = ["Noise", "Options", "stages"]


@dataclass(frozen=True)
class Options:
    """`rays`: samples per pixel of what is rendered, 1..4. `noise`: how often stages err."""

    rays: int = 4
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self):
        if not 1 <= self.rays <= 4:
            raise UserError(f"procedural options: rays={self.rays} must be 1, 2, 3 or 4")


def stages(options: Options) -> Stages:
    """Every stage, answered exactly (but for `options.noise`)."""
    drawing, looking, writing = Drawing(options.rays, options.noise), Looking(options.noise), Writing(options.noise)
    return Stages(
        sources=None,
        categories=tuple(KINDS),
        write_scene=write_scene,
        draw=drawing.draw,
        redraw=drawing.redraw,
        without=drawing.without,
        detect=looking.detect,
        tag=looking.tag,
        verify=looking.verify,
        segment=looking.segment,
        compare=looking.compare,
        caption=caption,
        describe=describe,
        instruct=writing.instruct,
        think=writing.think,
        resemble=None, merge=None, match=None, stillness=None, changed=None, narrate=None,
        rate=None, compose=None, rewrite=None, summarise=None, judge=None,
    )  # fmt: skip
