"""MACRO's customization (arXiv 2603.25319): objects, people, clothes, a scene and a style in one image.

    propose   references of the sampled categories; a VLM rates their fit and writes the instruction: accepted at
              8 of 10 or better, else the best of 10 proposals
    compose   a multi-reference model draws the instruction with them
    judge     kept if every reference is consistent (reference -> image) and the instruction is followed
              (instruction -> image), 6 of 10 or better
    layout    if the image's scene is known: truth, MUSIC's grid and a chain of thought

Read next: `filters.py`, `macro/engines/procedural/composition.py`.
"""

from dataclasses import dataclass, replace

import numpy as np

from macro.engines.core import Candidate, Step, arranged, region_notes, set_answers
from macro.engines.ground_truth import box_of, grid_of, ground_truths, labels
from macro.engines.macrodata.filters import judge_scores, marker_error
from macro.engines.macrodata.mixture import rank_of, references_of
from macro.engines.macrodata.options import Options
from macro.engines.material.types import CATEGORIES, EngineImage
from macro.engines.provider import JudgeRequest, Provider, Region, Suitability
from macro.scenes.language import chain_of_thought, questions
from macro.scenes.similarity import dressed, matched, subject_similarity
from macro.sentence.plan import Plan
from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Target, Truth
from macro.utils.errors import ItemError
from macro.utils.streams import stream

SHARES = (0.4, 0.1, 0.3, 0.15, 0.05)


@dataclass(frozen=True, eq=False)
class CustomizationCandidate(Candidate):
    """A candidate; image n of `references` is of `categories[n - 1]`.

    `subjects` holds for each reference the target subject that it shows or clothes, if the layout is known.
    """

    categories: tuple[str, ...] = ()
    references: tuple[EngineImage, ...] = ()
    suitability: Suitability | None = None
    image: EngineImage | None = None
    subjects: tuple[int | None, ...] = ()
    plan: Plan | None = None
    truth: Truth | None = None


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> CustomizationCandidate:
    """An empty candidate; its number of references and their categories are the same for every attempt."""
    categories = draw_categories(stream(seed, index, "categories"), references_of(seed, index, bucket))
    return CustomizationCandidate(seed, index, attempt, "customization", bucket, categories=categories)


def draw_categories(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Categories of `count` references, sampled by `SHARES` and resampled as a whole until they fit into one image."""
    while True:
        drawn = tuple(str(name) for name in rng.choice(CATEGORIES, count, p=SHARES))
        if _possible(drawn):
            return drawn


def _possible(categories: tuple[str, ...]) -> bool:
    """At most one style and one scene, cloth only with a human to wear it [code]; and at least one subject [ours]."""
    many = {name: categories.count(name) for name in CATEGORIES}
    return (
        many["style"] <= 1 and many["scene"] <= 1 and many["cloth"] <= many["human"]
        and many["human"] + many["object"] >= 1
    )  # fmt: skip


# ---- steps ----

Batch = list[CustomizationCandidate]


def _propose(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Proposals for the candidates without one that is good enough; the best is kept."""
    best = {candidate.index: candidate for candidate in candidates}
    reasons = dict.fromkeys(best, "")
    for turn in range(options.proposals):
        wanting = [candidate for candidate in best.values() if _score(candidate) < options.accept]
        gathered = [_gather(candidate, turn, provider) for candidate in wanting]
        asked = [(d, refs) for d, refs in zip(wanting, gathered, strict=True) if not isinstance(refs, ItemError)]
        reasons |= {d.index: g.reason for d, g in zip(wanting, gathered, strict=True) if isinstance(g, ItemError)}
        answers = provider.rate(
            [refs for _, refs in asked],
            [d.categories for d, _ in asked],
            [d.seed_for(f"rate {turn}") for d, _ in asked],
        )
        for (candidate, refs), answer in zip(asked, answers, strict=True):
            wrong = answer.reason if isinstance(answer, ItemError) else marker_error(answer.instruction, len(refs))
            if wrong:
                reasons[candidate.index] = wrong
            elif answer.score > _score(candidate):
                best[candidate.index] = candidate.replace(references=refs, suitability=answer)
    return [_proposed(best[candidate.index], reasons[candidate.index], options) for candidate in candidates]


def _score(candidate: CustomizationCandidate) -> float:
    return -1.0 if candidate.suitability is None else candidate.suitability.score


def _gather(candidate: CustomizationCandidate, turn: int, provider: Provider) -> tuple[EngineImage, ...] | ItemError:
    try:
        return tuple(
            provider.sources.pooled(category, candidate.seed, _source_index(candidate, turn, n))
            for n, category in enumerate(candidate.categories, 1)
        )
    except ItemError as fault:
        return fault


def _source_index(candidate: CustomizationCandidate, turn: int, n: int) -> int:
    """The first proposals of all samples go through the pools in order, further ones take something at random."""
    if turn:
        return candidate.seed_for(f"reference {turn} {n}")
    return candidate.source_index(rank_of(candidate.index) * MAX_REFERENCES + n - 1, str(n))


def _proposed(candidate: CustomizationCandidate, reason: str, options: Options) -> CustomizationCandidate:
    if candidate.suitability is None:
        return candidate.replace(dropped=("propose", reason))
    score = candidate.suitability.score
    return candidate.check("suitability", True, score, "" if score >= options.accept else "the best of all proposals")


def _compose(candidates: Batch, provider: Provider, options: Options) -> Batch:
    prompts, references = [d.suitability.instruction for d in candidates], [d.references for d in candidates]
    sizes, seeds = [options.size] * len(candidates), [d.seed_for("compose") for d in candidates]
    return set_answers(candidates, "compose", "image", provider.compose(prompts, references, sizes, seeds))


def _judge(candidates: Batch, provider: Provider, options: Options) -> Batch:
    requests = [JudgeRequest("customization", d.suitability.instruction, d.references, d.image) for d in candidates]
    return judge_scores(candidates, requests, provider, options.threshold)


def _lay_out(candidates: Batch, provider: Provider, options: Options) -> Batch:
    known = [c for c in candidates if all(p.scene is not None for p in (c.image, *c.references))]
    exact = dict(zip([d.index for d in known], ground_truths([d.image for d in known]), strict=True))
    return [_laid_out(d, exact[d.index], options) if d.index in exact else d for d in candidates]


def _laid_out(candidate: CustomizationCandidate, truth: Truth, options: Options) -> CustomizationCandidate:
    grid, lost = grid_of(truth, options)
    cot = chain_of_thought.cot(candidate.image.scene, truth, candidate.rng("think"))
    truth = replace(truth, questions=questions.ask(truth, candidate.rng("questions")))
    candidate = candidate.replace(plan=Plan(cot, grid), truth=truth, subjects=_subjects_of(candidate))
    return candidate.check("layout", lost == 0, float(lost), f"{lost} subjects have no cell" if lost else "")


def _subjects_of(candidate: CustomizationCandidate) -> tuple[int | None, ...]:
    """For each reference the number of the subject that it shows, or that wears it; None for scenes and styles."""
    there = candidate.image.scene.subjects
    shown = [n for n, category in enumerate(candidate.categories) if category in ("human", "object")]
    wears = ["cloth" in candidate.categories and candidate.categories[n] == "human" for n in shown]
    wanted = [candidate.references[n].scene.subjects[0] for n in shown]
    places = dict(zip(shown, matched(wanted, there, wears), strict=True))
    found: list[int | None] = [None] * len(candidate.categories)
    for n, category in enumerate(candidate.categories):
        if category == "cloth":
            cloth = candidate.references[n].scene.surroundings
            humans = [places[m] for m in shown if candidate.categories[m] == "human" and places[m] is not None]
            found[n] = 1 + max(humans, key=lambda place: subject_similarity(dressed(there[place], cloth), there[place]))
        elif places.get(n) is not None:
            found[n] = places[n] + 1
    return tuple(found)


STEPS = (Step("propose", _propose), Step("compose", _compose), Step("judge", _judge), Step("layout", _lay_out))


def finish(candidate: CustomizationCandidate, options: Options) -> Sentence:
    """Instruction and references in one of the two arrangements, the plan if known, the target."""
    subjects = candidate.subjects or (None,) * len(candidate.references)
    images = [
        Image(image.pixels, subject=subject, number=n)
        for n, (image, subject) in enumerate(zip(candidate.references, subjects, strict=True), 1)
    ]
    spans = arranged(candidate.suitability.instruction, images, candidate.rng("arrangement"), options.image_first)
    plan = (candidate.plan,) if candidate.plan else ()
    notes = {"categories": list(candidate.categories), "descriptions": list(candidate.suitability.descriptions)}
    if candidate.truth is not None:
        truth = candidate.truth
        notes["regions"] = region_notes(Region(name, box_of(truth, n)) for n, name in enumerate(labels(truth)))
    target = Target(candidate.image.pixels)
    return Sentence((*spans, *plan, target), "customization", candidate.index, candidate.truth, notes)
