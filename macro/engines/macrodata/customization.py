"""MACRO's customization (arXiv 2603.25319): many things, people, clothes, one place and one style in one picture.

    propose   references of drawn categories; a VLM says how well they go together and writes the instruction: taken at
              8 of 10 or better, else the best of 10 proposals
    compose   a multi-reference model draws the instruction with them
    judge     kept if every reference is consistent (reference -> picture) and the instruction is followed
              (instruction -> picture), 6 of 10 or better
    layout    where the picture's scene is known: truth, MUSIC's grid and a chain of thought

Read next: `judging.py`, `macro/engines/procedural/pool.py`.
"""

from dataclasses import dataclass, replace

import numpy as np

from macro.engines.drafts import Draft, Step, use
from macro.engines.known import box_of, labels, truths
from macro.engines.macrodata.judging import judged, misnamed
from macro.engines.macrodata.mixture import references_of, stream
from macro.engines.macrodata.options import Options
from macro.engines.sources import Picture, SourceFault
from macro.engines.stages import Fault, Judgement, Stages, Suitability
from macro.scenes.ground_truth import annotate
from macro.scenes.language import chain_of_thought, questions
from macro.scenes.similarity import dressed, matched, subject_similarity
from macro.sentence.formats import ARRANGEMENTS
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Truth

CATEGORIES = ("human", "cloth", "object", "scene", "style")
SHARES = (0.4, 0.1, 0.3, 0.15, 0.05)


@dataclass(frozen=True, eq=False)
class Customization(Draft):
    """What is known of a sample; picture n of `references` is of `categories[n - 1]`.

    `subjects` says for each of them which subject of the target it shows or clothes, where the layout is known.
    """

    categories: tuple[str, ...] = ()
    references: tuple[Picture, ...] = ()
    suitability: Suitability | None = None
    picture: Picture | None = None
    subjects: tuple[int | None, ...] = ()
    plan: Plan | None = None
    truth: Truth | None = None


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> Customization:
    """An empty draft; its number of references and their categories are the same for every attempt."""
    categories = draw_categories(stream(seed, index, "categories"), references_of(seed, index, bucket))
    return Customization(seed, index, attempt, "customization", bucket, categories=categories)


def draw_categories(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Categories of `count` references: by `SHARES`, drawn again as a whole until they can be one picture."""
    while True:
        drawn = tuple(str(name) for name in rng.choice(CATEGORIES, count, p=SHARES))
        if _possible(drawn):
            return drawn


def _possible(categories: tuple[str, ...]) -> bool:
    """At most one style and one scene, clothes for whom there is a human [code]; and somebody to show [ours]."""
    many = {name: categories.count(name) for name in CATEGORIES}
    return (
        many["style"] <= 1 and many["scene"] <= 1 and many["cloth"] <= many["human"]
        and many["human"] + many["object"] >= 1
    )  # fmt: skip


# ---- steps ----


def _propose(drafts: list[Customization], stages: Stages, options: Options) -> list[Customization]:
    """Proposal after proposal for whoever has none that is good enough; the best stays."""
    best = {draft.index: draft for draft in drafts}
    reasons = dict.fromkeys(best, "")
    for turn in range(options.proposals):
        wanting = [draft for draft in best.values() if _score(draft) < options.accept]
        gathered = [_gather(draft, turn, stages) for draft in wanting]
        asked = [(d, refs) for d, refs in zip(wanting, gathered, strict=True) if not isinstance(refs, Fault)]
        reasons |= {d.index: g.reason for d, g in zip(wanting, gathered, strict=True) if isinstance(g, Fault)}
        answers = stages.rate(
            [refs for _, refs in asked], [d.categories for d, _ in asked], [d.number(f"rate {turn}") for d, _ in asked]
        )
        for (draft, refs), answer in zip(asked, answers, strict=True):
            wrong = answer.reason if isinstance(answer, Fault) else misnamed(answer.instruction, len(refs))
            if wrong:
                reasons[draft.index] = wrong
            elif answer.score > _score(draft):
                best[draft.index] = draft.set(references=refs, suitability=answer)
    return [_proposed(best[draft.index], reasons[draft.index], options) for draft in drafts]


def _score(draft: Customization) -> float:
    return -1.0 if draft.suitability is None else draft.suitability.score


def _gather(draft: Customization, turn: int, stages: Stages) -> tuple[Picture, ...] | Fault:
    try:
        return tuple(
            stages.sources.pooled(category, draft.seed, draft.number(f"reference {turn} {n}"))
            for n, category in enumerate(draft.categories, 1)
        )
    except SourceFault as fault:
        return Fault(str(fault))


def _proposed(draft: Customization, reason: str, options: Options) -> Customization:
    if draft.suitability is None:
        return draft.set(dropped=("propose", reason))
    score = draft.suitability.score
    return draft.passes("suitability", True, score, "" if score >= options.accept else "the best of all proposals")


def _compose(drafts: list[Customization], stages: Stages, options: Options) -> list[Customization]:
    prompts, references = [d.suitability.instruction for d in drafts], [d.references for d in drafts]
    answers = stages.compose(prompts, references, [options.size] * len(drafts), [d.number("compose") for d in drafts])
    return use(drafts, "compose", answers, lambda draft, picture: draft.set(picture=picture))


def _judge(drafts: list[Customization], stages: Stages, options: Options) -> list[Customization]:
    judgements = [Judgement("customization", d.suitability.instruction, d.references, d.picture) for d in drafts]
    return judged(drafts, judgements, stages, options.threshold)


def _lay_out(drafts: list[Customization], stages: Stages, options: Options) -> list[Customization]:
    known = [draft for draft in drafts if all(p.scene is not None for p in (draft.picture, *draft.references))]
    exact = dict(zip([d.index for d in known], truths([d.picture for d in known]), strict=True))
    return [_laid_out(d, exact[d.index], options) if d.index in exact else d for d in drafts]


def _laid_out(draft: Customization, truth: Truth, options: Options) -> Customization:
    grid = annotate.layout(truth.masks, truth.boxes, options.K, options.region)
    cot = chain_of_thought.cot(draft.picture.scene, truth, draft.stream("think"))
    truth = replace(truth, questions=questions.ask(truth, draft.stream("questions")))
    lost = len(truth.kinds) - len(np.setdiff1d(grid, [0]))
    draft = draft.set(plan=Plan(cot, grid), truth=truth, subjects=_subjects_of(draft))
    return draft.passes("layout", lost == 0, float(lost), f"{lost} subjects have no cell" if lost else "")


def _subjects_of(draft: Customization) -> tuple[int | None, ...]:
    """For each reference the number of the subject that it shows, or that wears it; None for places and styles."""
    there = draft.picture.scene.subjects
    shown = [n for n, category in enumerate(draft.categories) if category in ("human", "object")]
    wears = ["cloth" in draft.categories and draft.categories[n] == "human" for n in shown]
    wanted = [draft.references[n].scene.subjects[0] for n in shown]
    places = dict(zip(shown, matched(wanted, there, wears), strict=True))
    found: list[int | None] = [None] * len(draft.categories)
    for n, category in enumerate(draft.categories):
        if category == "cloth":
            cloth = draft.references[n].scene.surroundings
            humans = [places[m] for m in shown if draft.categories[m] == "human" and places[m] is not None]
            found[n] = 1 + max(humans, key=lambda place: subject_similarity(dressed(there[place], cloth), there[place]))
        elif places.get(n) is not None:
            found[n] = places[n] + 1
    return tuple(found)


STEPS = (Step("propose", _propose), Step("compose", _compose), Step("judge", _judge), Step("layout", _lay_out))


def finish(draft: Customization, options: Options) -> Sentence:
    """Instruction and references in one of the two arrangements, the plan where it is known, the target."""
    subjects = draft.subjects or (None,) * len(draft.references)
    images = [
        Image(picture.pixels, subject=subject, number=n)
        for n, (picture, subject) in enumerate(zip(draft.references, subjects, strict=True), 1)
    ]
    arrangement = "image_first" if draft.stream("arrangement").random() < options.image_first else "in_sentence"
    spans = ARRANGEMENTS[arrangement](draft.suitability.instruction, images)
    plan = (draft.plan,) if draft.plan else ()
    notes = {"categories": list(draft.categories), "descriptions": list(draft.suitability.descriptions)}
    if draft.truth is not None:
        names = labels(draft.picture.scene)
        notes["regions"] = [
            {"label": name, "box": list(box_of(draft.truth, n)), "score": 1.0} for n, name in enumerate(names)
        ]
    target = Target(draft.picture.pixels)
    return Sentence((*spans, *plan, target), "customization", draft.index, draft.truth, notes)
