"""Options of the MacroData engine, for all four tasks."""

import math
from dataclasses import dataclass, field

from macro.engines.macrodata import shot_boundaries
from macro.scenes.ground_truth import annotate
from macro.utils.errors import UserError, check_range


@dataclass(frozen=True)
class SpatialOptions:
    """How spatial samples are made.

    Attributes:
        inside_out: share that looks out from one standpoint; the others look at an object from all around.
        fov: field of view of views cut from a panorama, degrees [paper: 90].
        base_pitch: such views deviate from the horizontal, or the vertical, by up to this many degrees [paper: 10].
        overlap: "largest" or "mean" of the target's overlaps with its inputs. With "mean", views
            without overlap count as much as those with: few inputs pass.
        lowest, highest: range in which that overlap must lie [paper: .3, .8].
    """

    inside_out: float = 0.5
    fov: float = 90.0
    base_pitch: float = 10.0
    overlap: str = "largest"
    lowest: float = 0.3
    highest: float = 0.8

    def __post_init__(self):
        if self.overlap not in ("largest", "mean"):
            raise UserError(f"spatial options: overlap={self.overlap!r} must be 'largest' or 'mean'")
        if not 0 <= self.inside_out <= 1 or not 0 <= self.lowest <= self.highest <= 1:
            raise UserError("spatial options: inside_out, and lowest <= highest, must lie in 0..1")
        if not 0 < self.fov < 180 or not 0 <= self.base_pitch <= 45:
            raise UserError("spatial options: fov must lie within 0..180, base_pitch in 0..45 degrees")


@dataclass(frozen=True)
class TemporalOptions:
    """How temporal samples are made.

    Attributes:
        alike: least similarity of neighbouring key frames [paper: .7].
        words: number of words that a summary must stay below [paper: 50].
        cut_least, cut_times: thresholds of a cut, see `shot_boundaries.cuts`.
    """

    alike: float = 0.7
    words: int = 50
    cut_least: float = shot_boundaries.LEAST
    cut_times: float = shot_boundaries.TIMES

    def __post_init__(self):
        check_range("temporal options", self, -1, 1, "alike")
        check_range("temporal options", self, 2, math.inf, "words")
        check_range("temporal options", self, 0, math.inf, "cut_least")
        check_range("temporal options", self, 1, math.inf, "cut_times")


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        size: side of the composed images, and of views cut from a panorama, pixels.
        accept: suitability, 0..10, at which proposed references are accepted [code: 8] ...
        proposals: ... within this many; then the best of them is taken [code: 10].
        threshold: minimum of every score of a judge, 0..10 [paper: 6].
        stories: how many stories are searched for a page that needs the right number of earlier images.
        K, region: the layout rule's settings (`annotate.layout`), if the layout is known.
        image_first: share of samples in the image-first arrangement; the others are in-sentence.
        spatial, temporal: options of those tasks.
    """

    size: int = 128
    accept: float = 8.0
    proposals: int = 10
    threshold: float = 6.0
    stories: int = 8
    K: str = "overlap"
    region: str = "mask"
    image_first: float = 0.25
    spatial: SpatialOptions = field(default_factory=SpatialOptions)
    temporal: TemporalOptions = field(default_factory=TemporalOptions)

    def __post_init__(self):
        if self.K not in annotate.READINGS_OF_K or self.region not in annotate.REGIONS:
            raise UserError(
                f"macrodata options: K is one of {annotate.READINGS_OF_K}, region of {annotate.REGIONS}, "
                f"not {self.K!r} and {self.region!r}"
            )
        check_range("macrodata options", self, 0, 1, "image_first")
        check_range("macrodata options", self, 0, 10, "accept", "threshold")
        check_range("macrodata options", self, 1, math.inf, "size", "proposals", "stories")
