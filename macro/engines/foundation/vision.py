"""Every stage that is a vision model, by its usual loader; loaded when first called, once per process.

Read next: the files that they are in, `macro/engines/provider.py` for what they answer.
"""

from macro.engines.foundation.detector import GroundingDino
from macro.engines.foundation.embeddings import Clip, Dino
from macro.engines.foundation.generators import FluxCompose, FluxDraw, KontextRedraw
from macro.engines.foundation.orb_filter import OrbStillness
from macro.engines.foundation.segmenter import Sam2

__all__ = ["Clip", "Dino", "FluxCompose", "FluxDraw", "GroundingDino", "KontextRedraw", "OrbStillness", "Sam2"]
