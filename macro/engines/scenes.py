"""Seeded samples from rendered scenes: references, instruction, chain of thought, layout, target, ground truth.

Sample `index` of `seed` is a pure function of (seed, index, options): alone or in a batch it is the same.
Images are rendered in batches, targets and references each in one go. A quarter of the scenes are decimated
as in MUSIC (arXiv 2604.07422, "subject-count decimation"): the smallest subjects are removed and the rest is
rendered again, so that the target matches its layout.
Read next: `macro/scenes/ground_truth/annotate.py`, `macro/scenes/language/captions.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from macro.engines.core import Candidate, Engine, Step, arranged, set_answers
from macro.engines.ground_truth import grid_of
from macro.engines.provider import Provider
from macro.scenes.graph import Scene
from macro.scenes.language import captions, chain_of_thought, questions
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_images, render_with_truth
from macro.sentence.plan import Plan
from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Target, Truth
from macro.utils.errors import UserError
from macro.utils.streams import stream

Pixels = UInt8[np.ndarray, "h w 3"]

# Changes whenever the same seed, index and options give a different sample, so that stored samples are rebuilt.
VERSION = "1.2.0"

# Buckets of subject counts, equally likely; so are the counts within a bucket.
BUCKETS = ((1, 2, 3), (4, 5), (6, 7), (8, 9, 10), (11, 12))
MIXTURE = tuple(1 / len(BUCKETS) / len(bucket) for bucket in BUCKETS for _ in bucket)

# Purpose of each random stream of a sample; with separate streams, one choice does not change the others.
_SCENE, _WORDS, _REFERENCES, _JITTER = range(4)


def check_counts(counts: Sequence[int | float], where: str) -> None:
    """Raises UserError unless these are the weights of 1..12 subjects; `where` names their options."""
    if len(counts) != 12 or min(counts) < 0 or not sum(counts):
        raise UserError(f"{where}: counts must be 12 weights, for 1..12 subjects, not all zero")


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        size, reference_size: side of the target and of the references, pixels.
        counts: weights of 1..12 subjects.
        rays: samples per pixel, 1..4.
        decimation: share of samples whose smallest subjects are removed.
        image_first: share of samples in the image-first arrangement; the others are in-sentence.
        views: how many references a subject has, each equally likely while twelve images suffice.
        min_area: least visible share of the image for every subject, or the scene is drawn again ...
        tries: ... up to this many times; then the best attempt is kept.
        K, region: the layout rule's settings (`annotate.layout`).
    """

    size: int = 128
    reference_size: int = 64
    counts: tuple[int | float, ...] = MIXTURE
    rays: int = 4
    decimation: float = 0.25
    image_first: float = 0.25
    views: tuple[int, ...] = (1,)
    min_area: float = 0.01
    tries: int = 4
    K: str = "overlap"
    region: str = "mask"

    def __post_init__(self):
        check_counts(self.counts, "scenes options")
        if not self.views or min(self.views) < 1:
            raise UserError("scenes options: views must be numbers of references, each at least 1")


DEFAULT = Options()


def samples(seed: int, start: int, count: int, options: Options = DEFAULT) -> list[Sentence]:
    """Samples `start` .. `start + count - 1` of `seed`, rendered together.

    Returns:
        Sentences: prompt and references in one of the two arrangements, Plan, Target; `idx` is the index and
        `truth` is the exact ground truth.
    """
    return _samples(seed, range(start, start + count), options)


def _samples(seed: int, indices: Sequence[int], options: Options) -> list[Sentence]:
    drawn = draw_scenes(seed, indices, options)
    orders = [_references(seed, index, d.scene, options) for index, d in zip(indices, drawn, strict=True)]
    alone = [scene for order in orders for _, scene in order]
    pixels = iter(render_images(alone, options.reference_size, options.rays))
    out = []
    for index, d, order in zip(indices, drawn, orders, strict=True):
        images = [Image(next(pixels), subject=n, number=k) for k, (n, _) in enumerate(order, 1)]
        out.append(_sentence(stream(seed, index, _WORDS, 0), index, d, images, options))
    return out


def rerenders(seed: int, start: int, count: int, options: Options = DEFAULT) -> list[Pixels]:
    """The targets of those samples rendered again in other light, with other poses and texture phases.

    This is the output of a perfect composer, which knows the layout but not the light (`layout_sampler.jitter`).

    Returns:
        uint8[size, size, 3] for each of samples `start` .. `start + count - 1`.
    """
    indices = range(start, start + count)
    again = [
        layout_sampler.jitter(drawn.scene, stream(seed, index, _JITTER, 0))
        for index, drawn in zip(indices, draw_scenes(seed, indices, options), strict=True)
    ]
    return render_images(again, options.size, options.rays)


# ---- scenes ----


@dataclass(frozen=True)
class Drawn:
    """A scene with its image and truth (without questions); `fault` is 0 if every subject is visible enough."""

    scene: Scene
    pixels: Pixels
    truth: Truth
    fault: float


def draw_scenes(seed: int, indices: Sequence[int], options: Options = DEFAULT) -> list[Drawn]:
    """The scene of every index: the first attempt without a fault, or else the one with the smallest."""
    best: dict[int, Drawn] = {}
    for attempt in range(options.tries):
        wanting = [i for i in indices if i not in best or best[i].fault > 0]
        scenes = [_scene(seed, i, attempt, options) for i in wanting]
        for index, drawn in zip(wanting, _rendered(scenes, options), strict=True):
            if index not in best or drawn.fault < best[index].fault:
                best[index] = drawn
    return [best[i] for i in indices]


def _scene(seed: int, index: int, attempt: int, options: Options) -> Scene:
    count, lost = _counts(seed, index, options)
    rng = stream(seed, index, _SCENE, attempt + 1)
    scene = layout_sampler.sample_scene(rng, count + lost)
    scene = layout_sampler.decimate(scene, count) if lost else scene
    return captions.in_order_of_mention(scene, rng)


def _counts(seed: int, index: int, options: Options) -> tuple[int, int]:
    """How many subjects a sample shows, and how many smaller ones were removed from its scene.

    The same for every attempt: retries must not bias the mixture towards easy counts.
    """
    return draw_counts(stream(seed, index, _SCENE, 0), options.counts, options.decimation)


def draw_counts(rng: np.random.Generator, counts: Sequence[int | float], decimation: float) -> tuple[int, int]:
    """A number of subjects by the weights of 1..12, and how many smaller ones are removed, in a share of the draws."""
    count = int(rng.choice(12, p=np.array(counts) / sum(counts))) + 1
    decimated = rng.random() < decimation and 2 <= count < 12
    return count, int(rng.integers(1, min(4, 12 - count) + 1)) if decimated else 0


def _rendered(scenes: list[Scene], options: Options) -> Iterator[Drawn]:
    images = render_with_truth(scenes, options.size, options.size, options.rays)
    for scene, (pixels, truth) in zip(scenes, images, strict=True):
        yield Drawn(scene, pixels, truth, _fault(truth, options))


def _fault(truth: Truth, options: Options) -> float:
    """0 if every subject has visible area `min_area` and a cell; else how much is missing."""
    areas = truth.masks.mean((1, 2))
    return float(np.maximum(1 - areas / options.min_area, 0).sum()) + grid_of(truth, options)[1]


def _references(seed: int, index: int, scene: Scene, options: Options) -> list[tuple[int, Scene]]:
    """(subject, scene with it alone) in the order of their image numbers."""
    rng = stream(seed, index, _REFERENCES, 0)
    order, spare = [], MAX_REFERENCES - len(scene.subjects)
    for n in range(1, len(scene.subjects) + 1):
        views = min(int(rng.choice(options.views)), spare + 1)
        spare -= views - 1
        order += [(n, layout_sampler.reference_scene(scene, n - 1, rng)) for _ in range(views)]
    return order


# ---- sentences ----


def _sentence(rng: np.random.Generator, index: int, drawn: Drawn, images: list[Image], options: Options) -> Sentence:
    scene, truth = drawn.scene, drawn.truth
    numbers = [[i.number for i in images if i.subject == n] for n in range(1, len(scene.subjects) + 1)]
    prompt = captions.instruction(scene, truth, rng, numbers)
    cot = chain_of_thought.cot(scene, truth, rng)
    grid, _ = grid_of(truth, options)
    truth = replace(truth, questions=questions.ask(truth, rng))
    spans = arranged(prompt, images, rng, options.image_first)
    return Sentence((*spans, Plan(cot, grid), Target(drawn.pixels)), "compose", index, truth)


# ---- as an engine ----


@dataclass(frozen=True, eq=False)
class SceneCandidate(Candidate):
    sentence: Sentence | None = None


def bucket_of(count: int) -> str:
    """The name of the bucket of a number of subjects: "4-5"."""
    bucket = next(bucket for bucket in BUCKETS if count in bucket)
    return f"{bucket[0]}-{bucket[-1]}"


def _start(seed: int, index: int, attempt: int, options: Options) -> SceneCandidate:
    return SceneCandidate(seed, index, attempt, "compose", bucket_of(_counts(seed, index, options)[0]))


def _render(candidates: list[SceneCandidate], provider: Provider | None, options: Options) -> list[SceneCandidate]:
    """Makes the whole sample in one step: the scene is known as soon as it is drawn."""
    made = _samples(candidates[0].seed, [candidate.index for candidate in candidates], options)
    return set_answers(candidates, "render", "sentence", made)


# Nothing is ever dropped: `draw_scenes` has already redrawn scenes in which subjects are hardly visible.
_STEPS = (Step("render", _render),)
ENGINE = Engine(
    "scenes", VERSION, Options, _start, _STEPS, lambda c, _: c.sentence, max_attempts=1, needs_provider=False
)
