"""The models that a data engine calls: a stage is a method of a `Provider`.

A stage takes a batch and answers item by item, in order. An item that cannot be answered (a broken file, an
answer without the required fields) yields an `ItemError` with its reason: that sample is dropped, the others go
on. With any provider, the same inputs (seeds included) give the same answers.

There are two providers. `macro/engines/procedural/` answers from the scene graph, which is exact: every image it
draws carries its `scene`. `macro/engines/foundation/` runs real models, which see nothing but pixels.
Boxes are (x0, y0, x1, y1) in 0..1 of the image. Read next: `core.py`, `music.py`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool

from macro.engines.material.types import EngineImage, MaterialSource
from macro.scenes.graph import Scene
from macro.utils.errors import ItemError

Box = tuple[float, float, float, float]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Region:
    """A detected object in an image.

    `label` is the requested name, `score` 0..1 the confidence of the detection, `mask` bool[h, w] its pixels,
    where known.
    """

    label: str
    box: Box
    score: float = 1.0
    mask: Mask | None = None

    @property
    def area(self) -> float:
        """Share of the image that the box covers, 0..1."""
        return max(self.box[2] - self.box[0], 0.0) * max(self.box[3] - self.box[1], 0.0)


# ---- inputs and answers that are more than text and numbers ----


@dataclass(frozen=True)
class SceneRequest:
    """`categories` to choose from, about `count` of which should go together."""

    categories: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class ScenePrompt:
    """A scene in words: `caption` is the text-to-image prompt, `labels` name the subjects that should be in the image.

    `scene` is known to the procedural provider only.
    """

    caption: str
    labels: tuple[str, ...]
    scene: Scene | None = None


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """Input of the stages that write text about a target.

    Attributes:
        image: the target; regions: its subjects, subject n is regions[n - 1] and is shown by `<image n>`.
        references: the images, `<image n>` is references[n - 1].
        seed: chooses the wording.
    """

    image: EngineImage
    regions: tuple[Region, ...]
    references: tuple[EngineImage, ...]
    seed: int


@dataclass(frozen=True)
class InterleavedCaption:
    """INSET's interleaved caption, and the phrase in it (each once, as whole words) that image n shows, n from 1."""

    caption: str
    phrases: dict[str, int]


@dataclass(frozen=True, eq=False)
class Match:
    """One object in two images."""

    label: str
    before: Region
    after: Region


@dataclass(frozen=True)
class Suitability:
    """How well images fit into one composition (0..10), what each shows, and an instruction that uses them all."""

    score: float
    descriptions: tuple[str, ...]
    instruction: str


@dataclass(frozen=True)
class RewrittenPage:
    """A page of a story as an instruction: `text` with one `<image n>` for each kept image, and which images those are.

    `kept` are indices into the given list, from 0, in the order of their numbers.
    """

    text: str
    kept: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class JudgeRequest:
    """An image to be scored against its instruction.

    Attributes:
        rubric: a key of `macro.judges.rubrics.RUBRICS`, which says which scores (0..10) come back.
        prompt: the instruction; references: its images; image: the result.
        truth: the true target, where the rubric shows it to the judge.
    """

    rubric: str
    prompt: str
    references: tuple[EngineImage, ...]
    image: EngineImage
    truth: EngineImage | None = None


# ---- the stages ----

Images = Sequence[EngineImage]
Regions = Sequence[Region]
T = TypeVar("T")
Answers = list[T | ItemError]  # one for each item, in order


class Stages:
    """The signature of every stage; `sizes` are sides in pixels, of square images."""

    def write_scene(self, asks: Sequence[SceneRequest], seeds: Sequence[int]) -> Answers[ScenePrompt]:
        """LLM: keeps categories that fit together and writes a scene of them."""

    def draw(self, ideas: Sequence[ScenePrompt], sizes: Sequence[int], seeds: Sequence[int]) -> Answers[EngineImage]:
        """Text-to-image: draws a scene prompt."""

    def detect(self, images: Images, labels: Sequence[Sequence[str]]) -> Answers[list[Region]]:
        """Open-vocabulary detector: at most one region for each label, best first; those not found are missing.

        A label that occurs twice in its list requests two different regions.
        """

    def tag(self, images: Images) -> Answers[list[str]]:
        """VLM: names the salient things in an image, as labels for the detector."""

    def verify(self, images: Images, regions: Sequence[Regions]) -> Answers[list[bool]]:
        """VLM: whether each box holds what its label says, whole and alone."""

    def segment(self, images: Images, regions: Sequence[Regions]) -> Answers[list[Mask]]:
        """Boxes to masks bool[h, w]."""

    def novel_view(
        self, images: Images, regions: Regions, sizes: Sequence[int], seeds: Sequence[int]
    ) -> Answers[EngineImage]:
        """Image-to-image: the subject of a region alone on a plain background, from another view; never a crop."""

    def text_similarity(
        self, images: Images, regions: Regions, texts: Sequence[str], masked: Sequence[bool]
    ) -> Answers[float]:
        """Similarity (CLIP) of a text and a region: the crop of its box, blank outside the mask if `masked`."""

    def image_similarity(self, first: Images, second: Images) -> Answers[float]:
        """Similarity of two images, -1..1 (cosine of DINOv2 features)."""

    def remove_subjects(
        self, images: Images, regions: Sequence[Regions]
    ) -> Answers[tuple[EngineImage, list[Region]] | None]:
        """The image again with only these regions' subjects in it, or None if it cannot be drawn again.

        Returns the image and the regions in it, in the given order.
        """

    def caption(self, images: Images, seeds: Sequence[int]) -> Answers[str]:
        """VLM: describes an image in one or two sentences."""

    def describe(self, images: Images, regions: Regions, seeds: Sequence[int]) -> Answers[str]:
        """VLM: a noun phrase for the thing in a region."""

    def merge(
        self,
        images: Images,
        captions: Sequence[str],
        regions: Sequence[Regions],
        descriptions: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> Answers[InterleavedCaption]:
        """LLM: merges a caption and its things, (label, box, description) each, into one interleaved caption.

        `images` are for providers that know the scenes.
        """

    def instruct(self, briefs: Sequence[PromptRequest]) -> Answers[str]:
        """VLM: an instruction for a target, with `<image n>` for each reference."""

    def think(self, briefs: Sequence[PromptRequest], prompts: Sequence[str]) -> Answers[str]:
        """VLM: the chain of thought before the layout: each subject's role, relations and position."""

    def match(self, before: Images, after: Images) -> Answers[list[Match]]:
        """VLM: which things are in both frames, and where."""

    def static_share(self, before: Images, after: Images) -> Answers[float]:
        """Share of local features (ORB) that stay in the same place in both frames, 0..1."""

    def changed(self, before: Images, after: Images) -> Answers[bool]:
        """VLM: whether an action, a pose or a shape really changed, and not only the light or the camera."""

    def narrate(
        self, before: Images, after: Images, matches: Sequence[Sequence[Match]], seeds: Sequence[int]
    ) -> Answers[InterleavedCaption]:
        """VLM: an interleaved instruction for the second frame; phrase -> n: the n-th match, cut from the first."""

    def rate(
        self, references: Sequence[Images], categories: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> Answers[Suitability]:
        """VLM: how well these images, of these categories, fit together, with an instruction that uses them all."""

    def compose(
        self, prompts: Sequence[str], references: Sequence[Images], sizes: Sequence[int], seeds: Sequence[int]
    ) -> Answers[EngineImage]:
        """Multi-reference image model: draws an instruction with its references."""

    def rewrite(
        self,
        texts: Sequence[Sequence[str]],
        images: Sequence[Images],
        text: Sequence[str],
        targets: Images,
        seeds: Sequence[int],
    ) -> Answers[RewrittenPage]:
        """VLM: which earlier images the last page needs, and its text with placeholders for them.

        `texts` and `images` are the pages so far, `text` and `target` the page to draw.
        """

    def summarise(self, frames: Sequence[Images], seeds: Sequence[int]) -> Answers[str]:
        """VLM: what happens in key frames, in order, in under 50 words."""

    def judge(self, requests: Sequence[JudgeRequest]) -> Answers[dict[str, float]]:
        """VLM: the rubric's scores, each 0..10."""


class Provider(Stages):
    """Answers the stages passed by name; calling another raises NotImplementedError.

    Args:
        sources: the raw material.
        categories: what a scene may contain.
        stages: name of a method of `Stages`, or "spent" -> the function that answers it.

    Raises:
        TypeError: there is no such stage.
    """

    def __init__(self, sources: MaterialSource, categories: tuple[str, ...] = (), **stages: Callable[..., Any]):
        self.sources, self.categories = sources, categories
        names = [name for name in vars(Stages) if not name.startswith("_")]
        for name in stages.keys() - {*names, "spent"}:
            raise TypeError(f"provider: there is no stage {name!r}")
        vars(self).update({name: functools.partial(_missing, name) for name in names} | stages)

    def replace(self, **changes: Any) -> "Provider":
        """A copy with other stages, `sources` or `categories`."""
        return Provider(**{**vars(self), **changes})

    def spent(self) -> dict[str, int]:
        """What the stages have cost since the last call, by name: {"asked": 12, "tokens_in": 3400}."""
        return {}


def _missing(name: str, *asked: Any) -> Any:
    raise NotImplementedError(f"provider: nothing answers the stage {name!r}")
