"""MUSIC's data engine (arXiv 2604.07422): a scene is written, drawn and taken apart again, no label by a person.

    scene       categories are sampled, an LLM keeps those that go together and writes their scene
    draw        text-to-image
    detect      an open-vocabulary detector finds the subjects
    area        boxes of less than .01 of the picture leave
    verify      a VLM checks the boxes
    decimate    the smallest subjects leave, in some samples; drawn again without them where that can be
    segment     masks
    region      mask or box: the mask if CLIP says that it fits the label better
    layout      the 8 x 8 grid by the dynamic threshold (`macro/scenes/ground_truth/annotate.py`); who has no cell ends
                the draft
    redraw      a reference of each subject, from another view: never a crop
    instruct    a VLM writes the instruction
    think       ... and the chain of thought

A subject that is not found, too small or not what it should be leaves the sample; the sample goes on while
`min_subjects` are left. Where the picture's scene is known its truth comes along. Read next: `drafts.py`, `stages.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int8

from macro.engines.drafts import Draft, Engine, Step, fill, notes_of, regroup, use
from macro.engines.known import narrowed_truth, subject_at, truths
from macro.engines.scenes import MIXTURE, bucket_of, check_counts, draw_counts
from macro.engines.sources import Picture
from macro.engines.stages import Brief, Fault, Idea, Region, SceneAsk, Stages
from macro.scenes.ground_truth import annotate
from macro.scenes.language import questions
from macro.sentence.formats import ARRANGEMENTS, marker
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Truth
from macro.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        size, reference_size: sides of target and references, pixels.
        counts: weight of 1..12 subjects.
        choice: how many times as many categories are offered as subjects are wanted.
        min_area: share of the picture that a subject's box must reach [paper: .01].
        min_subjects: with fewer left, a draft that was to have more is dropped.
        decimation: share of samples whose smallest subjects leave.
        K, region: the layout rule's readings (`annotate.layout`); region "clip" lets CLIP choose mask or box [paper].
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
        for name in ("min_area", "decimation", "image_first"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"music options: {name}={getattr(self, name)} must lie in 0..1")
        for name in ("size", "reference_size", "choice", "min_subjects"):
            if getattr(self, name) < 1:
                raise UserError(f"music options: {name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, eq=False)
class MusicDraft(Draft):
    """What is known of a sample; `count` subjects are wanted, after `lost` smaller ones have left."""

    count: int = 1
    lost: int = 0
    idea: Idea | None = None
    picture: Picture | None = None
    regions: tuple[Region, ...] = ()
    shapes: tuple[str, ...] = ()  # "mask" or "box", subject by subject
    grid: Int8[np.ndarray, "8 8"] | None = None
    references: tuple[Picture, ...] = ()
    prompt: str = ""
    cot: str = ""
    truth: Truth | None = None

    @property
    def brief(self) -> Brief:
        return Brief(self.picture, self.regions, self.references, self.number("words"))


def start(seed: int, index: int, attempt: int, options: Options) -> MusicDraft:
    """An empty draft: how many subjects it is for is the same for every attempt, or hard counts would grow rare."""
    rng = MusicDraft(seed, index, 0, "compose", "").stream("count")
    count, lost = draw_counts(rng, options.counts, options.decimation)
    return MusicDraft(seed, index, attempt, "compose", bucket_of(count), count=count, lost=lost)


# ---- steps ----


def _write_scene(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    asks = []
    for draft in drafts:
        wanted = draft.count + draft.lost
        offered = min(len(stages.categories), options.choice * wanted)
        chosen = draft.stream("categories").choice(stages.categories, offered, replace=False)
        asks.append(SceneAsk(tuple(map(str, chosen)), wanted))
    return fill(drafts, "scene", "idea", stages.write_scene(asks, [d.number("scene") for d in drafts]))


def _draw(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    ideas, seeds = [d.idea for d in drafts], [d.number("draw") for d in drafts]
    return fill(drafts, "draw", "picture", stages.draw(ideas, [options.size] * len(drafts), seeds))


def _detect(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    def found(draft: MusicDraft, regions: list[Region]) -> MusicDraft:
        return _still_enough(draft.set(regions=tuple(regions)), "detect", len(draft.idea.labels), options)

    answers = stages.detect([d.picture for d in drafts], [d.idea.labels for d in drafts])
    return use(drafts, "detect", answers, found)


def _area(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    return [
        _kept(draft, "area", [region.area >= options.min_area for region in draft.regions], options)
        for draft in drafts
    ]


def _verify(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    answers = stages.verify([d.picture for d in drafts], [d.regions for d in drafts])
    return use(drafts, "verify", answers, lambda draft, right: _kept(draft, "verify", right, options))


def _kept(draft: MusicDraft, name: str, right: Sequence[bool], options: Options) -> MusicDraft:
    """The draft with those of its regions that are right, and the verdict on it."""
    kept = tuple(region for region, good in zip(draft.regions, right, strict=True) if good)
    return _still_enough(draft.set(regions=kept), name, len(draft.regions), options)


def _still_enough(draft: MusicDraft, name: str, before: int, options: Options) -> MusicDraft:
    """A verdict on how many subjects are left of `before`; its value is their share."""
    left = len(draft.regions)
    enough = left >= min(options.min_subjects, draft.count)
    return draft.passes(name, enough, left / max(before, 1), f"{left} of {before} subjects left")


def _decimate(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    """The smallest boxes leave until `count` are left; the picture is drawn again without them where that can be."""

    def largest(draft: MusicDraft) -> tuple[Region, ...]:
        by_size = sorted(range(len(draft.regions)), key=lambda i: -draft.regions[i].area)
        return tuple(draft.regions[i] for i in sorted(by_size[: draft.count]))

    def drawn_again(draft: MusicDraft, again: tuple[Picture, list[Region]] | None) -> MusicDraft:
        if again is None:
            return draft.set(regions=largest(draft))
        return draft.set(picture=again[0], regions=tuple(again[1]))

    crowded = [draft for draft in drafts if len(draft.regions) > draft.count]
    answers = stages.without([d.picture for d in crowded], [largest(d) for d in crowded])
    fewer = {draft.index: draft for draft in use(crowded, "decimate", answers, drawn_again)}
    return [fewer.get(draft.index, draft) for draft in drafts]


def _segment(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    def masked(draft: MusicDraft, masks: list[np.ndarray]) -> MusicDraft:
        pairs = zip(draft.regions, masks, strict=True)
        return draft.set(regions=tuple(replace(region, mask=mask) for region, mask in pairs))

    answers = stages.segment([d.picture for d in drafts], [d.regions for d in drafts])
    return use(drafts, "segment", answers, masked)


def _choose_region(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    """Mask where `Sim_mask > Sim_unmask`, else box, subject by subject; an empty mask is no choice."""
    if options.region != "clip":
        return [draft.set(shapes=(options.region,) * len(draft.regions)) for draft in drafts]
    things = [(draft.picture, region) for draft in drafts for region in draft.regions]
    pictures, regions = [picture for picture, _ in things], [region for _, region in things]
    texts, sizes = [region.label for region in regions], [len(draft.regions) for draft in drafts]
    with_mask = stages.compare(pictures, regions, texts, [True] * len(things))
    with_box = stages.compare(pictures, regions, texts, [False] * len(things))

    def chosen(draft: MusicDraft, fits: list[tuple[float, float]]) -> MusicDraft:
        pairs = zip(draft.regions, fits, strict=True)
        shapes = ("mask" if mask > box and region.mask.any() else "box" for region, (mask, box) in pairs)
        return draft.set(shapes=tuple(shapes))

    answers = [
        next((side for side in sides if isinstance(side, Fault)), sides)
        for sides in zip(with_mask, with_box, strict=True)
    ]
    return use(drafts, "region", regroup(answers, sizes), chosen)


def _lay_out(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    def with_grid(draft: MusicDraft) -> MusicDraft:
        masks = np.stack([region.mask for region in draft.regions])
        boxes = np.array([region.box for region in draft.regions], np.float32)
        grid = annotate.layout(masks, boxes, options.K, draft.shapes)
        lost = sorted(set(range(1, len(masks) + 1)) - set(np.unique(grid).tolist()))
        names = ", ".join(draft.regions[n - 1].label for n in lost)
        return draft.set(grid=grid).passes("layout", not lost, float(len(lost)), names and f"no cell for {names}")

    return [with_grid(draft) for draft in drafts]


def _redraw(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    things = [(d.picture, region, d.number(f"redraw {n}")) for d in drafts for n, region in enumerate(d.regions)]
    pictures, regions, seeds = ([thing[i] for thing in things] for i in range(3))
    answers = stages.redraw(pictures, regions, [options.reference_size] * len(things), seeds)
    grouped = regroup(answers, [len(draft.regions) for draft in drafts])
    return use(drafts, "redraw", grouped, lambda draft, pictures: draft.set(references=tuple(pictures)))


def _instruct(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    def complete(draft: MusicDraft, prompt: str) -> MusicDraft:
        missing = [marker(n) for n in range(1, len(draft.references) + 1) if marker(n) not in prompt]
        reason = missing and f"the instruction does not mention {', '.join(missing)}"
        return draft.set(prompt=prompt).passes("instruct", not missing, float(len(missing)), reason or "")

    return use(drafts, "instruct", stages.instruct([d.brief for d in drafts]), complete)


def _think(drafts: list[MusicDraft], stages: Stages, options: Options) -> list[MusicDraft]:
    thoughts = stages.think([d.brief for d in drafts], [d.prompt for d in drafts])
    thought = fill(drafts, "think", "cot", thoughts)
    known = [draft for draft in thought if draft.dropped is None and draft.picture.scene is not None]
    exact = dict(zip([d.index for d in known], truths([d.picture for d in known]), strict=True))
    return [_with_truth(d, exact[d.index]) if d.index in exact else d for d in thought]


def _with_truth(draft: MusicDraft, truth: Truth) -> MusicDraft:
    """The truth about the subjects that the sample speaks of, in its order."""
    order = [subject_at(truth, region) for region in draft.regions]
    about = narrowed_truth(truth, order)
    return draft.set(truth=replace(about, questions=questions.ask(about, draft.stream("questions"))))


def finish(draft: MusicDraft, options: Options) -> Sentence:
    """Prompt and references in one of the two arrangements, plan, target."""
    images = [Image(shown.pixels, subject=n, number=n) for n, shown in enumerate(draft.references, 1)]
    arrangement = "image_first" if draft.stream("arrangement").random() < options.image_first else "in_sentence"
    spans = ARRANGEMENTS[arrangement](draft.prompt, images)
    found = draft.set(bucket=bucket_of(len(draft.regions)))
    regions = [{"label": r.label, "box": list(r.box), "score": r.score} for r in draft.regions]
    notes = notes_of(found, ENGINE, regions=regions, shapes=list(draft.shapes), caption=draft.idea.caption)
    spans = (*spans, Plan(draft.cot, draft.grid), Target(draft.picture.pixels))
    return Sentence(spans, "compose", draft.index, draft.truth, notes)


ENGINE = Engine(
    name="music",
    version="1.0.0",
    options=Options,
    start=start,
    steps=(
        Step("scene", _write_scene), Step("draw", _draw), Step("detect", _detect), Step("area", _area),
        Step("verify", _verify), Step("decimate", _decimate), Step("segment", _segment),
        Step("region", _choose_region), Step("layout", _lay_out), Step("redraw", _redraw),
        Step("instruct", _instruct), Step("think", _think),
    ),
    finish=finish,
)  # fmt: skip
