"""MUSIC's data engine (arXiv 2604.07422): scenes are written, drawn and annotated, with no human labels.

    scene       categories are sampled; an LLM keeps those that fit together and writes a scene of them
    draw        text-to-image
    detect      an open-vocabulary detector finds the subjects
    area        boxes of less than .01 of the image are dropped
    verify      a VLM checks the boxes
    decimate    in some samples the smallest subjects are removed; the image is drawn again without them if possible
    segment     masks
    region      mask or box: the mask if CLIP finds it closer to the label
    layout      the 8 x 8 grid by the dynamic threshold (`scenes/ground_truth/annotate.py`); every subject needs a cell
    redraw      a reference of each subject from a novel view: never a crop
    instruct    a VLM writes the instruction
    think       ... and the chain of thought

A subject that is not found, too small or wrongly labelled is dropped; the sample goes on while
`min_subjects` are left. If the image's scene is known, its truth is stored too. Read next: `core.py`, `provider.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int8

from macro.engines.core import (
    Candidate,
    Engine,
    Step,
    arranged,
    each,
    group_answers,
    map_answers,
    notes_of,
    region_notes,
    set_answers,
)  # fmt: skip
from macro.engines.ground_truth import ground_truths, subject_at
from macro.engines.material.types import EngineImage
from macro.engines.provider import PromptRequest, Provider, Region, ScenePrompt, SceneRequest
from macro.engines.scenes import MIXTURE, bucket_of, check_counts, draw_counts
from macro.scenes.ground_truth import annotate
from macro.scenes.language import questions
from macro.sentence.plan import Plan
from macro.sentence.prompt import marker
from macro.sentence.spans import Image, Sentence, Target, Truth
from macro.utils.errors import UserError, check_range


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        size, reference_size: sides of target and references, pixels.
        counts: weights of 1..12 subjects.
        choice: number of categories offered, as a multiple of the number of subjects wanted.
        min_area: least share of the image for a subject's box [paper: .01].
        min_subjects: a candidate with fewer left, and fewer than it should have, is dropped.
        decimation: share of samples whose smallest subjects are removed.
        K, region: the layout rule's settings (`annotate.layout`); region "clip" lets CLIP choose mask or box [paper].
        image_first: share of samples in the image-first arrangement.
    """

    size: int = 128
    reference_size: int = 64
    counts: tuple[int | float, ...] = MIXTURE
    choice: int = 3
    min_area: float = 0.01
    min_subjects: int = 2
    decimation: float = 0.25
    K: str = "overlap"
    region: str = "clip"
    image_first: float = 0.25

    def __post_init__(self):
        check_counts(self.counts, "music options")
        if self.K not in annotate.READINGS_OF_K or self.region not in ("clip", *annotate.REGIONS):
            raise UserError(f"music options: K is one of {annotate.READINGS_OF_K}, region clip, mask or box")
        check_range("music options", self, 0, 1, "min_area", "decimation", "image_first")
        check_range("music options", self, 1, np.inf, "size", "reference_size", "choice", "min_subjects")


@dataclass(frozen=True, eq=False)
class MusicCandidate(Candidate):
    """A candidate for `count` subjects, once `lost` smaller ones have been removed."""

    count: int = 1
    lost: int = 0
    idea: ScenePrompt | None = None
    image: EngineImage | None = None
    regions: tuple[Region, ...] = ()
    shapes: tuple[str, ...] = ()  # "mask" or "box", one per subject
    grid: Int8[np.ndarray, "8 8"] | None = None
    references: tuple[EngineImage, ...] = ()
    prompt: str = ""
    cot: str = ""
    truth: Truth | None = None

    @property
    def brief(self) -> PromptRequest:
        return PromptRequest(self.image, self.regions, self.references, self.seed_for("words"))


def start(seed: int, index: int, attempt: int, options: Options) -> MusicCandidate:
    """An empty candidate; its number of subjects is the same for every attempt, or hard counts would become rare."""
    rng = MusicCandidate(seed, index, 0, "compose", "").rng("count")
    count, lost = draw_counts(rng, options.counts, options.decimation)
    return MusicCandidate(seed, index, attempt, "compose", bucket_of(count), count=count, lost=lost)


# ---- steps ----


def _write_scene(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    asks = []
    for candidate in candidates:
        wanted = candidate.count + candidate.lost
        offered = min(len(provider.categories), options.choice * wanted)
        chosen = candidate.rng("categories").choice(provider.categories, offered, replace=False)
        asks.append(SceneRequest(tuple(map(str, chosen)), wanted))
    return set_answers(
        candidates, "scene", "idea", provider.write_scene(asks, [d.seed_for("scene") for d in candidates])
    )


def _draw(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    ideas, seeds = [d.idea for d in candidates], [d.seed_for("draw") for d in candidates]
    return set_answers(candidates, "draw", "image", provider.draw(ideas, [options.size] * len(candidates), seeds))


def _detect(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    def found(candidate: MusicCandidate, regions: list[Region]) -> MusicCandidate:
        return _still_enough(candidate.replace(regions=tuple(regions)), "detect", len(candidate.idea.labels), options)

    answers = provider.detect([d.image for d in candidates], [d.idea.labels for d in candidates])
    return map_answers(candidates, "detect", answers, found)


def _area(candidate: MusicCandidate, options: Options) -> MusicCandidate:
    return _kept(candidate, "area", [region.area >= options.min_area for region in candidate.regions], options)


def _verify(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    answers = provider.verify([d.image for d in candidates], [d.regions for d in candidates])
    return map_answers(
        candidates, "verify", answers, lambda candidate, right: _kept(candidate, "verify", right, options)
    )


def _kept(candidate: MusicCandidate, name: str, right: Sequence[bool], options: Options) -> MusicCandidate:
    """The candidate with only the regions that are right, and the filter's result."""
    kept = tuple(region for region, good in zip(candidate.regions, right, strict=True) if good)
    return _still_enough(candidate.replace(regions=kept), name, len(candidate.regions), options)


def _still_enough(candidate: MusicCandidate, name: str, before: int, options: Options) -> MusicCandidate:
    """Filters by the number of subjects left of `before`; its value is their share."""
    left = len(candidate.regions)
    enough = left >= min(options.min_subjects, candidate.count)
    return candidate.check(name, enough, left / max(before, 1), f"{left} of {before} subjects left")


def _decimate(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    """Removes the smallest boxes until `count` are left; draws the image again without them if possible."""

    def largest(candidate: MusicCandidate) -> tuple[Region, ...]:
        by_size = sorted(range(len(candidate.regions)), key=lambda i: -candidate.regions[i].area)
        return tuple(candidate.regions[i] for i in sorted(by_size[: candidate.count]))

    def drawn_again(candidate: MusicCandidate, again: tuple[EngineImage, list[Region]] | None) -> MusicCandidate:
        if again is None:
            return candidate.replace(regions=largest(candidate))
        return candidate.replace(image=again[0], regions=tuple(again[1]))

    crowded = [candidate for candidate in candidates if len(candidate.regions) > candidate.count]
    answers = provider.remove_subjects([d.image for d in crowded], [largest(d) for d in crowded])
    fewer = {candidate.index: candidate for candidate in map_answers(crowded, "decimate", answers, drawn_again)}
    return [fewer.get(candidate.index, candidate) for candidate in candidates]


def _segment(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    def masked(candidate: MusicCandidate, masks: list[np.ndarray]) -> MusicCandidate:
        pairs = zip(candidate.regions, masks, strict=True)
        return candidate.replace(regions=tuple(replace(region, mask=mask) for region, mask in pairs))

    answers = provider.segment([d.image for d in candidates], [d.regions for d in candidates])
    return map_answers(candidates, "segment", answers, masked)


def _choose_region(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    """For each subject the mask if `Sim_mask > Sim_unmask`, else the box; an empty mask is never chosen."""
    if options.region != "clip":
        return [candidate.replace(shapes=(options.region,) * len(candidate.regions)) for candidate in candidates]
    things = [(candidate.image, region) for candidate in candidates for region in candidate.regions]
    images, regions = [image for image, _ in things], [region for _, region in things]
    texts, sizes = [region.label for region in regions], [len(candidate.regions) for candidate in candidates]
    with_mask = provider.text_similarity(images, regions, texts, [True] * len(things))
    with_box = provider.text_similarity(images, regions, texts, [False] * len(things))

    def chosen(candidate: MusicCandidate, fits: list[list[float]]) -> MusicCandidate:
        pairs = zip(candidate.regions, fits, strict=True)
        shapes = ("mask" if mask > box and region.mask.any() else "box" for region, (mask, box) in pairs)
        return candidate.replace(shapes=tuple(shapes))

    both = group_answers([side for sides in zip(with_mask, with_box, strict=True) for side in sides], [2] * len(things))
    return map_answers(candidates, "region", group_answers(both, sizes), chosen)


def _lay_out(candidate: MusicCandidate, options: Options) -> MusicCandidate:
    masks = np.stack([region.mask for region in candidate.regions])
    boxes = np.array([region.box for region in candidate.regions], np.float32)
    grid = annotate.layout(masks, boxes, options.K, candidate.shapes)
    lost = sorted(set(range(1, len(masks) + 1)) - set(np.unique(grid).tolist()))
    names = ", ".join(candidate.regions[n - 1].label for n in lost)
    return candidate.replace(grid=grid).check("layout", not lost, float(len(lost)), names and f"no cell for {names}")


def _redraw(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    things = [(d.image, region, d.seed_for(f"redraw {n}")) for d in candidates for n, region in enumerate(d.regions)]
    images, regions, seeds = ([thing[i] for thing in things] for i in range(3))
    answers = provider.novel_view(images, regions, [options.reference_size] * len(things), seeds)
    grouped = group_answers(answers, [len(candidate.regions) for candidate in candidates])
    return map_answers(
        candidates, "redraw", grouped, lambda candidate, images: candidate.replace(references=tuple(images))
    )


def _instruct(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    def complete(candidate: MusicCandidate, prompt: str) -> MusicCandidate:
        missing = [marker(n) for n in range(1, len(candidate.references) + 1) if marker(n) not in prompt]
        reason = missing and f"the instruction does not mention {', '.join(missing)}"
        return candidate.replace(prompt=prompt).check("instruct", not missing, float(len(missing)), reason or "")

    return map_answers(candidates, "instruct", provider.instruct([d.brief for d in candidates]), complete)


def _think(candidates: list[MusicCandidate], provider: Provider, options: Options) -> list[MusicCandidate]:
    thoughts = provider.think([d.brief for d in candidates], [d.prompt for d in candidates])
    thought = set_answers(candidates, "think", "cot", thoughts)
    known = [candidate for candidate in thought if candidate.dropped is None and candidate.image.scene is not None]
    exact = dict(zip([d.index for d in known], ground_truths([d.image for d in known]), strict=True))
    return [_with_truth(d, exact[d.index]) if d.index in exact else d for d in thought]


def _with_truth(candidate: MusicCandidate, truth: Truth) -> MusicCandidate:
    """The truth about the image: the sample's subjects in their order, then what else is visible."""
    order = [subject_at(truth, region) for region in candidate.regions]
    about = annotate.visible_truth(truth, order)
    return candidate.replace(truth=replace(about, questions=questions.ask(about, candidate.rng("questions"))))


def finish(candidate: MusicCandidate, options: Options) -> Sentence:
    """Prompt and references in one of the two arrangements, plan, target."""
    images = [Image(shown.pixels, subject=n, number=n) for n, shown in enumerate(candidate.references, 1)]
    spans = arranged(candidate.prompt, images, candidate.rng("arrangement"), options.image_first)
    found = candidate.replace(bucket=bucket_of(len(candidate.regions)))
    about = {"regions": region_notes(candidate.regions), "shapes": list(candidate.shapes)}
    notes = notes_of(found, ENGINE, **about, caption=candidate.idea.caption)
    spans = (*spans, Plan(candidate.cot, candidate.grid), Target(candidate.image.pixels))
    return Sentence(spans, "compose", candidate.index, candidate.truth, notes)


ENGINE = Engine(
    name="music",
    version="1.1.0",
    options=Options,
    start=start,
    steps=(
        Step("scene", _write_scene), Step("draw", _draw), Step("detect", _detect), Step("area", each(_area)),
        Step("verify", _verify), Step("decimate", _decimate), Step("segment", _segment),
        Step("region", _choose_region), Step("layout", each(_lay_out)), Step("redraw", _redraw),
        Step("instruct", _instruct), Step("think", _think),
    ),
    finish=finish,
)  # fmt: skip
