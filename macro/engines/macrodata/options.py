"""How samples of MacroData are made: the settings of all four tasks."""

from dataclasses import dataclass, field

from macro.engines.macrodata.spatial import Options as SpatialOptions
from macro.engines.macrodata.temporal import Options as TemporalOptions
from macro.scenes import annotate
from macro.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        size: side of the pictures that are composed, pixels.
        accept: suitability, 0..10, from which proposed references are taken [code: 8] ...
        proposals: ... among up to this many; then the best of them is [code: 10].
        threshold: what every score of a judge must reach, 0..10 [paper: 6].
        stories: how many stories are looked at for a page that needs the right number of earlier pictures.
        K, region: the layout rule's switches (`annotate.layout`), where the layout is known.
        image_first: share of samples in the image-first arrangement; the others are in-sentence.
        spatial, temporal: the settings of these tasks.
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
        if not 0 <= self.image_first <= 1:
            raise UserError(f"macrodata options: image_first={self.image_first} must lie in 0..1")
        for name in ("accept", "threshold"):
            if not 0 <= getattr(self, name) <= 10:
                raise UserError(f"macrodata options: {name}={getattr(self, name)} must lie in 0..10")
        for name in ("size", "proposals", "stories"):
            if getattr(self, name) < 1:
                raise UserError(f"macrodata options: {name}={getattr(self, name)} must be at least 1")
