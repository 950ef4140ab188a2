"""How engines run, with a toy engine whose candidates are numbers and whose one stage is arithmetic."""

import dataclasses
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.engines import core
from macro.engines.core import Candidate, Engine, FilterResult, Rejection, Step, make
from macro.engines.provider import Provider
from macro.sentence.spans import Sentence, Text
from macro.utils.errors import ItemError


@dataclass(frozen=True)
class Options:
    below: int = 60  # numbers of 0..99 from here on are dropped
    broken: int = 10  # the source has nothing for smaller ones


@dataclass(frozen=True)
class Number(Candidate):
    value: int = -1
    square: int = -1


class Nothing:
    """Raw material that nobody asks for."""

    def photo(self, seed, index): ...

    clip = story = turntable = panorama = photo

    def pooled(self, category, seed, index): ...


def stages_with(squares):
    """A provider whose judge is `squares`: the one stage that the toy calls."""
    return Provider(Nothing(), judge=squares)


def start(seed, index, attempt, options):
    return Number(seed, index, attempt, "count", "even" if index % 2 == 0 else "odd")


def choose(living, provider, options):
    def value_of(candidate):
        value = int(candidate.rng("value").integers(100))
        if value < options.broken:
            raise ItemError(f"{value}.png: is broken")
        return value

    return core.load_source(living, "choose", "value", value_of)


def keep_small(living, provider, options):
    return [d.check("small", d.value < options.below, float(d.value), f"{d.value} of {options.below}") for d in living]


def square(living, provider, options):
    return core.set_answers(living, "square", "square", provider.judge([candidate.value for candidate in living]))


def finish(candidate, options):
    notes = core.notes_of(candidate, ENGINE, square=candidate.square)
    return Sentence((Text(f"{candidate.index}: {candidate.square}"),), candidate.task, candidate.index, notes=notes)


STEPS = (Step("choose", choose), Step("small", keep_small), Step("square", square))
ENGINE = Engine("toy", "1.0.0", Options, start, STEPS, finish, max_attempts=4)


def squares(values):
    return [ItemError("bad luck") if value % 13 == 0 else value * value for value in values]


STAGES = stages_with(squares)


@pytest.fixture(scope="module")
def made():
    return make(ENGINE, STAGES, Options(), 3, range(200))


def expected(index, options=None):
    """What becomes of a place, told without the machinery: (square or None, [(step, reason) of its dead])."""
    options, died = options or Options(), []
    for attempt in range(ENGINE.max_attempts):
        value = int(Candidate(3, index, attempt, "", "").rng("value").integers(100))
        if value < options.broken:
            died.append(("choose", f"{value}.png: is broken"))
        elif value >= options.below:
            died.append(("small", f"{value} of {options.below}"))
        elif value % 13 == 0:
            died.append(("square", "bad luck"))
        else:
            return value * value, died
    return None, died


def test_every_place_ends_as_the_rule_says(made):
    found = {sample.idx: sample.notes["square"] for sample in made.samples}
    died = {index: [] for index in range(200)}
    for dead in made.dead:
        died[dead.index].append((dead.step, dead.reason))
    assert {index: (found.get(index), died[index]) for index in range(200)} == {i: expected(i) for i in range(200)}
    assert 0 < 200 - len(found) < 40  # some places stay empty, and this test would see it if none or all did


def test_samples_come_in_the_order_of_their_indices(made):
    indices = [sample.idx for sample in made.samples]
    assert indices == sorted(indices)
    given = [90, 4, 31, 4000]
    assert [sample.idx for sample in make(ENGINE, STAGES, Options(below=100), 3, given).samples] == sorted(given)


def test_the_dead_say_which_attempt_and_of_what(made):
    by_place = {}
    for dead in made.dead:
        assert isinstance(dead, Rejection)
        assert (dead.task, dead.bucket) == ("count", "even" if dead.index % 2 == 0 else "odd")
        by_place.setdefault(dead.index, []).append(dead.attempt)
    assert all(attempts == list(range(len(attempts))) for attempts in by_place.values())
    tried = {sample.idx: sample.notes["attempt"] for sample in made.samples}
    assert all(len(by_place.get(index, [])) == attempt for index, attempt in tried.items())


def test_counts_add_up(made):
    count = made.counts
    dropped = Counter(dead.step for dead in made.dead)
    assert {step: count[step, "dropped"] for step in ("choose", "small", "square")} == dict(dropped)
    assert count["small", "kept"] == len(made.samples) + dropped["square"]
    assert set(count) == {("choose", "dropped"), ("small", "kept"), ("small", "dropped"), ("square", "dropped")}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 199), min_size=1, max_size=12, unique=True))
def test_a_sample_does_not_know_what_is_made_beside_it(indices):
    together = make(ENGINE, STAGES, Options(), 3, indices)
    apart = [make(ENGINE, STAGES, Options(), 3, [index]) for index in indices]
    assert {s.idx: s for s in together.samples} == {s.idx: s for one in apart for s in one.samples}
    assert set(together.dead) == {dead for one in apart for dead in one.dead}
    assert together.counts == sum((one.counts for one in apart), Counter())


def test_another_seed_makes_other_samples(made):
    other = make(ENGINE, STAGES, Options(), 4, range(200))
    assert [s.notes["square"] for s in other.samples] != [s.notes["square"] for s in made.samples]


def test_notes_tell_how_a_sample_came_about(made):
    sample = made.samples[0]
    value = round(sample.notes["square"] ** 0.5)
    said = {"filter": "small", "kept": True, "value": float(value), "reason": f"{value} of 60"}
    attempt = len(expected(sample.idx)[1])
    assert sample.notes == {
        "engine": "toy 1.0.0", "bucket": "even" if sample.idx % 2 == 0 else "odd", "attempt": attempt,
        "verdicts": [said], "square": value * value,
    }  # fmt: skip


def test_the_dead_are_asked_nothing_more():
    asked = []

    def remember(values):
        asked.append(list(values))
        return squares(values)

    make(ENGINE, stages_with(remember), Options(), 3, range(50))
    assert 1 <= len(asked) <= ENGINE.max_attempts
    assert all(10 <= value < 60 for values in asked for value in values)


def test_steps_are_skipped_where_nobody_lives():
    def never(values):
        raise AssertionError("asked although nobody lives")

    made = make(ENGINE, stages_with(never), Options(below=0), 3, range(5))
    assert not made.samples and len(made.dead) == 5 * ENGINE.max_attempts


def test_one_round_leaves_the_dropped_to_the_next():
    batch = core.begin(ENGINE, Options(), 3, range(50))
    assert [candidate.attempt for candidate in batch.candidates] == [0] * 50
    for step in STEPS:
        batch = core.advance(batch, step, STAGES, Options())
        assert [candidate.index for candidate in batch.candidates] == list(range(50))
    settled = core.settle(batch, ENGINE, Options())
    assert {candidate.index for candidate in settled.candidates} == {dead.index for dead in settled.dead}
    assert {candidate.index for candidate in settled.done} == set(range(50)) - {dead.index for dead in settled.dead}
    assert all(c.attempt == 1 and not c.filter_results and c.dropped is None for c in settled.candidates)


@pytest.mark.parametrize("spoil", [lambda d: d[1:], lambda d: d[::-1], lambda d: [*d, d[0]]])
def test_a_step_that_loses_or_moves_candidates_is_caught(spoil):
    batch = core.begin(ENGINE, Options(), 3, range(5))
    with pytest.raises(ValueError, match="step spoilt: gave back other candidates"):
        core.advance(batch, Step("spoilt", lambda living, provider, options: spoil(living)), STAGES, Options())


# ---- candidates and what steps use ----


def test_a_purpose_has_its_own_random_numbers():
    candidate = Candidate(3, 5, 0, "count", "odd")
    assert candidate.seed_for("a") == Candidate(3, 5, 0, "other", "even").seed_for("a")
    others = [
        candidate.seed_for("b"),
        candidate.replace(seed=4).seed_for("a"),
        candidate.replace(index=6).seed_for("a"),
    ]
    others.append(candidate.replace(attempt=1).seed_for("a"))
    assert len({candidate.seed_for("a"), *others}) == 5
    assert all(0 <= number < 2**31 for number in others)
    first, again = (candidate.rng("a").random(4) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_result_is_kept_and_a_no_drops():
    candidate = Candidate(0, 0, 0, "count", "").check("area", True, 0.5).check("judge", False, 3.0, "too low")
    assert candidate.filter_results == (FilterResult("area", True, 0.5), FilterResult("judge", False, 3.0, "too low"))
    assert candidate.dropped == ("judge", "too low")


def test_a_fault_after_a_kept_result_of_the_same_name_counts_as_dropped():
    def judge(living, provider, options):
        return core.set_answers(
            [d.check("judge", True) for d in living], "judge", "value", [ItemError("mute")] * len(living)
        )

    engine = dataclasses.replace(ENGINE, steps=(Step("judge", judge),), max_attempts=1)
    made = make(engine, STAGES, Options(), 0, range(3))
    assert made.counts == {("judge", "kept"): 3, ("judge", "dropped"): 3}


def test_fill_wants_an_answer_for_every_candidate():
    living = [start(0, index, 0, Options()) for index in range(3)]
    filled = core.set_answers(living, "ask", "value", [4, ItemError("no"), 6])
    assert [candidate.value for candidate in filled] == [4, -1, 6]
    assert [candidate.dropped for candidate in filled] == [None, ("ask", "no"), None]
    with pytest.raises(ValueError):
        core.set_answers(living, "ask", "value", [1, 2])


def test_gather_drops_what_has_no_material_and_lets_other_errors_through():
    living = [start(0, index, 0, Options()) for index in range(3)]

    def get(candidate):
        if candidate.index == 1:
            raise ItemError("b.png: is broken")
        return candidate.index * 10

    gathered = core.load_source(living, "photo", "value", get)
    assert [candidate.value for candidate in gathered] == [0, -1, 20]
    assert [candidate.dropped for candidate in gathered] == [None, ("photo", "b.png: is broken"), None]
    with pytest.raises(ZeroDivisionError):
        core.load_source(living, "photo", "value", lambda candidate: 1 // candidate.index)


def test_regroup_gives_each_group_its_answers_or_its_first_fault():
    answers = [1, 2, 3, ItemError("a"), 5, ItemError("b"), 6]
    assert core.group_answers(answers, [2, 0, 4, 1]) == [[1, 2], [], ItemError("a"), [6]]
    assert core.group_answers([], []) == []


@given(st.lists(st.integers(0, 4), max_size=8))
def test_regroup_undoes_flattening(sizes):
    groups, flat = [], iter(range(100))
    for size in sizes:
        groups.append([next(flat) for _ in range(size)])
    assert core.group_answers([item for group in groups for item in group], sizes) == groups
