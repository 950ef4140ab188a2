"""What a data engine asks of its models: a stage is a method of a `Provider`.

A stage takes a batch and answers item by item, in order. An item that could not be answered (a broken file, an
answer without the promised fields) comes back as a `ItemError` with its reason: that sample is dropped, the others go
on. Whoever provides a stage, the same inputs (seeds included) give the same answers.

There are two providers. `macro/engines/procedural/` answers from the scene graph, which is exact: every image it
draws carries its `scene`. `macro/engines/foundation/` asks real models, and looks at nothing but pixels.
Boxes are (x0, y0, x1, y1) in 0..1 of the image. Read next: `core.py`, `music.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from macro.engines.material.types import EngineImage, MaterialSource
from macro.scenes.graph import Scene
from macro.utils.errors import ItemError

Box = tuple[float, float, float, float]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Region:
    """Something found in an image.

    `label` is what was asked for, `score` 0..1 how sure the finder is, `mask` bool[h, w] which pixels are its,
    where that is known.
    """

    label: str
    box: Box
    score: float = 1.0
    mask: Mask | None = None

    @property
    def area(self) -> float:
        """Share of the image that the box covers, 0..1."""
        return max(self.box[2] - self.box[0], 0.0) * max(self.box[3] - self.box[1], 0.0)


# ---- what is asked for, and answered, where words and numbers are not enough ----


@dataclass(frozen=True)
class SceneRequest:
    """`categories` to choose from, about `count` of which should go together."""

    categories: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class ScenePrompt:
    """A scene in words: `caption` for whoever draws it, `labels` of the subjects that should be in it.

    `scene` is known to the procedural provider only.
    """

    caption: str
    labels: tuple[str, ...]
    scene: Scene | None = None


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """What whoever writes words for an image gets to see.

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
    """INSET's answer: a caption, and which of its phrases (each once, as whole words) image n shows, n from 1."""

    caption: str
    phrases: dict[str, int]


@dataclass(frozen=True, eq=False)
class Match:
    """One thing seen in two images."""

    label: str
    before: Region
    after: Region


@dataclass(frozen=True)
class Suitability:
    """How well images go together in one (0..10), what each shows, and an instruction that uses them all."""

    score: float
    descriptions: tuple[str, ...]
    instruction: str


@dataclass(frozen=True)
class RewrittenPage:
    """A page of a story as an instruction: `text` with one `<image n>` for each kept image, and which those are.

    `kept` are places in the list that was given, from 0, in the order of their numbers.
    """

    text: str
    kept: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class JudgeRequest:
    """An image to be judged against what was asked.

    Attributes:
        rubric: a key of `macro.judges.rubrics.RUBRICS`, which says which scores (0..10) come back.
        prompt: the instruction; references: its images; image: what was made of them.
        truth: the true target, where the rubric shows it to the judge.
    """

    rubric: str
    prompt: str
    references: tuple[EngineImage, ...]
    image: EngineImage
    truth: EngineImage | None = None


# ---- the stages ----


class Provider:
    """Answers the stages that it is given by name; the others are not implemented.

    Args:
        sources: the raw material.
        categories: what a scene may be made of.
        stages: name of a method below -> what answers it.

    Raises:
        TypeError: a stage that there is none of.
    """

    def __init__(self, sources: MaterialSource, categories: tuple[str, ...] = (), **stages: Callable[..., Any]):
        self.sources, self.categories = sources, categories
        for name, stage in stages.items():
            if not callable(getattr(Provider, name, None)):
                raise TypeError(f"provider: there is no stage {name!r}")
            setattr(self, name, stage)

    def replace(self, **changes: Any) -> "Provider":
        """The same provider with other stages, `sources` or `categories`."""
        return Provider(**{**vars(self), **changes})

    def spent(self) -> dict[str, int]:
        """What the stages have cost since this was last asked, by name: {"asked": 12, "tokens_in": 3400}."""
        return {}

    def write_scene(self, asks: Sequence[SceneRequest], seeds: Sequence[int]) -> list[ScenePrompt | ItemError]:
        """LLM: keeps categories that go together and writes their scene."""
        raise NotImplementedError

    def draw(
        self, ideas: Sequence[ScenePrompt], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[EngineImage | ItemError]:
        """Text-to-image: draws an idea. `sizes` are sides in pixels, of square images."""
        raise NotImplementedError

    def detect(self, images: Sequence[EngineImage], labels: Sequence[Sequence[str]]) -> list[list[Region] | ItemError]:
        """Open-vocabulary detector: at most one region for each label, best first; those not found are missing.

        A label that stands twice in its list asks for two different regions.
        """
        raise NotImplementedError

    def tag(self, images: Sequence[EngineImage]) -> list[list[str] | ItemError]:
        """VLM: names the things that stand out in an image, as labels for the detector."""
        raise NotImplementedError

    def verify(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[list[bool] | ItemError]:
        """VLM: is what the label says in each box, whole and alone?"""
        raise NotImplementedError

    def segment(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[list[Mask] | ItemError]:
        """Boxes to masks bool[h, w]."""
        raise NotImplementedError

    def novel_view(
        self, images: Sequence[EngineImage], regions: Sequence[Region], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[EngineImage | ItemError]:
        """Image-to-image: the subject in a region alone before a plain backdrop, from another view; never a crop."""
        raise NotImplementedError

    def text_similarity(
        self,
        images: Sequence[EngineImage],
        regions: Sequence[Region],
        texts: Sequence[str],
        masked: Sequence[bool],
    ) -> list[float | ItemError]:
        """Similarity (CLIP) of a text and a region: the crop of its box, all but the mask blanked if `masked`."""
        raise NotImplementedError

    def image_similarity(self, first: Sequence[EngineImage], second: Sequence[EngineImage]) -> list[float | ItemError]:
        """Similarity of two images, -1..1 (cosine of DINOv2 features)."""
        raise NotImplementedError

    def remove_subjects(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[tuple[EngineImage, list[Region]] | None | ItemError]:
        """The image again with only these regions' subjects in it, or None where it cannot be drawn again.

        Answers the image and the regions, in the given order, as they are in it.
        """
        raise NotImplementedError

    def caption(self, images: Sequence[EngineImage], seeds: Sequence[int]) -> list[str | ItemError]:
        """VLM: what an image shows, in one or two sentences."""
        raise NotImplementedError

    def describe(
        self, images: Sequence[EngineImage], regions: Sequence[Region], seeds: Sequence[int]
    ) -> list[str | ItemError]:
        """VLM: a noun phrase for what is in a region."""
        raise NotImplementedError

    def merge(
        self,
        images: Sequence[EngineImage],
        captions: Sequence[str],
        regions: Sequence[Sequence[Region]],
        descriptions: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> list[InterleavedCaption | ItemError]:
        """LLM: a caption and its things, (label, box, description) each, become one interleaved caption.

        `images` are there for providers that know what is in them.
        """
        raise NotImplementedError

    def instruct(self, briefs: Sequence[PromptRequest]) -> list[str | ItemError]:
        """VLM: an instruction for a target, with `<image n>` for each reference."""
        raise NotImplementedError

    def think(self, briefs: Sequence[PromptRequest], prompts: Sequence[str]) -> list[str | ItemError]:
        """VLM: the chain of thought before the layout: each subject's role, relations, place."""
        raise NotImplementedError

    def match(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[list[Match] | ItemError]:
        """VLM: which things are in both frames, and where."""
        raise NotImplementedError

    def static_share(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[float | ItemError]:
        """Share of local features (ORB) that are in the same place in both frames, 0..1."""
        raise NotImplementedError

    def changed(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[bool | ItemError]:
        """VLM: has an action, a pose or a shape really changed, and not only the light or the camera?"""
        raise NotImplementedError

    def narrate(
        self,
        before: Sequence[EngineImage],
        after: Sequence[EngineImage],
        matches: Sequence[Sequence[Match]],
        seeds: Sequence[int],
    ) -> list[InterleavedCaption | ItemError]:
        """VLM: an interleaved instruction for the second frame; phrase -> n: the n-th match, cut from the first."""
        raise NotImplementedError

    def rate(
        self, references: Sequence[Sequence[EngineImage]], categories: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> list[Suitability | ItemError]:
        """VLM: do these images, of these categories, go together, and how would one ask for it?"""
        raise NotImplementedError

    def compose(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[EngineImage]],
        sizes: Sequence[int],
        seeds: Sequence[int],
    ) -> list[EngineImage | ItemError]:
        """Multi-reference image model: draws an instruction with its images."""
        raise NotImplementedError

    def rewrite(
        self,
        texts: Sequence[Sequence[str]],
        images: Sequence[Sequence[EngineImage]],
        text: Sequence[str],
        targets: Sequence[EngineImage],
        seeds: Sequence[int],
    ) -> list[RewrittenPage | ItemError]:
        """VLM: which earlier images does the last page need, and its text with placeholders for them.

        `texts` and `images` are the pages so far, `text` and `target` the page to draw.
        """
        raise NotImplementedError

    def summarise(self, frames: Sequence[Sequence[EngineImage]], seeds: Sequence[int]) -> list[str | ItemError]:
        """VLM: what happens in key frames, in order, in under 50 words."""
        raise NotImplementedError

    def judge(self, requests: Sequence[JudgeRequest]) -> list[dict[str, float] | ItemError]:
        """VLM: the rubric's scores, each 0..10."""
        raise NotImplementedError
