"""Customization and illustration on rendered material: what comes out, and what is dropped for which reason."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engines.exact import provider
from engines.macrodata.provided import engine

from macro.engines.core import advance, begin, make
from macro.engines.macrodata import Options, customization, illustration
from macro.engines.macrodata.mixture import BUCKETS
from macro.engines.provider import RewrittenPage
from macro.scenes.ground_truth import annotate
from macro.scenes.similarity import subject_similarity
from macro.sentence.prompt import images_by_number, prompt_of
from macro.utils.errors import ItemError

OPTIONS = Options(size=64, stories=20)
SEED, COUNT = 2, 4
STAGES = provider()


def sourced(**given):
    """The stages with some sources replaced."""

    class Changed:
        def __getattr__(self, name):
            return given.get(name) or getattr(STAGES.sources, name)

    return STAGES.replace(sources=Changed())


@pytest.fixture(scope="module")
def custom():
    made = make(engine(customization), STAGES, OPTIONS, SEED, range(COUNT))
    assert len(made.samples) == COUNT
    return made


@pytest.fixture(scope="module")
def stories():
    made = make(engine(illustration), STAGES, OPTIONS, SEED, range(COUNT))
    assert len(made.samples) == COUNT
    return made


def test_samples_have_the_bucket_s_number_of_references_and_name_each(custom, stories):
    for sample in (*custom.samples, *stories.samples):
        count = len(sample.images)
        assert count in BUCKETS[list(BUCKETS)[sample.idx % 4]]
        assert {int(n) for n in re.findall(r"<image (\d+)>", prompt_of(sample))} == set(range(1, count + 1))
        assert sample.target.pixels.shape == (64, 64, 3) and sample.truth is not None
        assert len(sample.truth.questions) >= 2


def test_a_sample_is_the_same_alone(custom, stories):
    for task, made in ((customization, custom), (illustration, stories)):
        assert make(engine(task), STAGES, OPTIONS, SEED, [3]).samples[0] == made.samples[3]


def test_customization_s_plan_is_the_truth_s_and_images_know_their_subjects(custom):
    for sample in custom.samples:
        np.testing.assert_array_equal(sample.plan.grid, annotate.layout(sample.truth.masks))
        assert sample.plan.cot
        shown = dict(zip(range(1, 99), sample.notes["categories"], strict=False))
        for image in images_by_number(sample):
            category = shown[image.number]
            assert (image.subject is None) == (category in ("scene", "style"))
            if category == "object":
                kind = sample.truth.kinds[image.subject - 1]
                assert kind in sample.notes["descriptions"][image.number - 1]
        subjects = [i.subject for i in sample.images if shown[i.number] in ("human", "object")]
        assert sorted(subjects) == list(range(1, len(sample.truth.kinds) + 1))


def test_illustration_s_images_are_of_no_one_subject_and_distractors_are_left_out(stories):
    for sample in stories.samples:
        assert sample.plan is None and all(image.subject is None for image in sample.images)
    drawn = _candidates(illustration, 2)
    for candidate in drawn:
        strangers = [image for _, image in candidate.story.distractors]
        assert candidate.references and not any(
            one is stranger for one in candidate.references for stranger in strangers
        )
        target = candidate.story.pages[candidate.page].image.scene
        for image in candidate.references:
            assert any(subject_similarity(a, b) > 0.999 for a in image.scene.subjects for b in target.subjects)


def _candidates(task, steps, count=4):
    batch = begin(engine(task), OPTIONS, SEED, range(count))
    for step in task.STEPS[:steps]:
        batch = advance(batch, step, STAGES, OPTIONS)
    return batch.candidates


def test_categories_keep_the_rules_and_their_shares():
    rng = np.random.default_rng(0)
    drawn = [customization.draw_categories(rng, n) for n in range(1, 11) for _ in range(60)]
    for categories in drawn:
        many = Counter(categories)
        assert many["style"] <= 1 and many["scene"] <= 1 and many["cloth"] <= many["human"]
        assert many["human"] + many["object"] >= 1
    shares = Counter(name for categories in drawn for name in categories)
    order = [name for name, _ in shares.most_common()]
    assert order[:2] == ["human", "object"] and order[-1] == "style"


def test_the_best_of_the_proposals_stays():
    """Judges of suitability who never like anything: the highest score is taken, after all proposals."""
    asked = []

    def rate(references, categories, seeds):
        asked.append(len(references))
        found = STAGES.rate(references, categories, seeds)
        return [replace(answer, score=float(len(asked))) for answer in found]

    options = replace(OPTIONS, proposals=3)
    batch = begin(engine(customization), options, SEED, [0, 1])
    for candidate in advance(batch, customization.STEPS[0], STAGES.replace(rate=rate), options).candidates:
        assert candidate.suitability.score == 3.0
        assert candidate.filter_results[0].kept and candidate.filter_results[0].reason == "the best of all proposals"
    assert asked == [2, 2, 2]


def _low(scores):
    return lambda requests: [scores(request) for request in requests]


@pytest.mark.parametrize(
    ("task", "changed", "step", "reason"),
    [
        (customization, {"judge": _low(lambda j: {"consistency_1": 9.0, "consistency_2": 5.0, "following": 9.0})},
         "consistency", "5.0, reference 2, below 6"),
        (customization, {"judge": _low(lambda j: {"consistency_1": 9.0, "following": 5.9})},
         "following", "5.9, below 6"),
        (customization, {"rate": lambda *asked: [ItemError("no JSON")] * len(asked[0])}, "propose", "no JSON"),
        (customization, {"compose": lambda *asked: [ItemError("timed out")] * len(asked[0])}, "compose", "timed out"),
        (illustration, {"judge": _low(lambda j: {"text": 8.0, "image": 2.0})}, "image", "2.0, below 6"),
        (illustration, {"rewrite": lambda *asked: [RewrittenPage("a dog", (99,))] * len(asked[0])}, "rewrite",
         r"keeps images \[99\]"),
        (illustration, {"rewrite": lambda *asked: [RewrittenPage("<image 1> and <image 2>", (0,))] * len(asked[0])},
         "rewrite", "names <image 2>, but there are 1"),
        (illustration, {"rewrite": lambda *asked: [RewrittenPage("a dog", ())] * len(asked[0])},
         "references", "0 images"),
    ],
)  # fmt: skip
def test_what_is_dropped_says_why(task, changed, step, reason):
    one = engine(task, max_attempts=1)
    made = make(one, STAGES.replace(**changed), replace(OPTIONS, proposals=1), SEED, [0])
    assert not made.samples
    assert made.dead[0].step == step and re.search(reason, made.dead[0].reason)


def test_broken_material_costs_a_proposal_or_a_look_not_the_sample():
    broken = []

    def pooled(category, seed, index):
        broken.append(index)
        if len(broken) == 1:
            raise ItemError("cut off")
        return STAGES.sources.pooled(category, seed, index)

    def story(seed, index):
        broken.append(index)
        if len(broken) == 1:
            raise ItemError("no pages")
        return STAGES.sources.story(seed, index)

    assert make(engine(customization, 1), sourced(pooled=pooled), OPTIONS, SEED, [0]).samples
    broken.clear()
    assert make(engine(illustration, 1), sourced(story=story), OPTIONS, SEED, [0]).samples


def test_without_a_fitting_page_a_candidate_is_dropped():
    def story(seed, index):
        whole = STAGES.sources.story(seed, index)
        return replace(whole, pages=whole.pages[:3], distractors=())

    made = make(engine(illustration, 1), sourced(story=story), replace(OPTIONS, stories=2), SEED, [3])
    assert made.dead[0].step == "story" and "no page of 2 stories needs 8-10" in made.dead[0].reason


def test_stories_without_named_characters_are_tried_anywhere():
    whole = STAGES.sources.story(1, 1)
    unnamed = replace(whole, pages=tuple(replace(page, characters=()) for page in whole.pages), casts=())
    assert [illustration.needed(unnamed, page, 2) for page in range(1, 5)][:3] == [1, 2, 2]
    cast = [set(page.characters) for page in whole.pages]
    last = len(cast) - 1
    assert illustration.needed(whole, last, 2) == sum(bool(cast[last] & earlier) for earlier in cast[:last])
