"""The provider of stages that knows the answers: every picture is rendered from a scene graph, which is asked.

    stages = procedural.stages(procedural.Options(noise=Noise(missed=.1)))

Nothing is downloaded, nothing estimated; `noise.py` makes it err on purpose. Each file holds the stages of one kind:
`draw.py`, `look.py`, `write.py`. Read next: `macro/engines/stages.py`, `macro/engines/known.py`.
"""

from dataclasses import dataclass, field

from macro.engines.procedural.noise import Noise
from macro.utils.errors import UserError

__all__ = ["Noise", "Options"]


@dataclass(frozen=True)
class Options:
    """`rays`: samples per pixel of what is rendered, 1..4. `noise`: how often stages err."""

    rays: int = 4
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self):
        if not 1 <= self.rays <= 4:
            raise UserError(f"procedural options: rays={self.rays} must be 1, 2, 3 or 4")
