"""Every stage that is a vision model, by its usual loader; loaded when first called, once per process.

Read next: the files that they are in, `macro/engines/stages.py` for what they answer.
"""

from macro.engines.foundation.detecting import GroundingDino
from macro.engines.foundation.drawing import FluxCompose, FluxDraw, KontextRedraw
from macro.engines.foundation.resembling import Clip, Dino
from macro.engines.foundation.segmenting import Sam2
from macro.engines.foundation.stillness import OrbStillness

__all__ = ["Clip", "Dino", "FluxCompose", "FluxDraw", "GroundingDino", "KontextRedraw", "OrbStillness", "Sam2"]
