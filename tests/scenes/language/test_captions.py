"""Instructions and thoughts: read back, every statement holds in the image; short; few words."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from scenes import paint
from scenes.eye import Eye

from macro.scenes.assets import appearance
from macro.scenes.ground_truth.relations import centroids
from macro.scenes.language import captions, chain_of_thought, lexicon
from macro.scenes.language.prompt_parser import names_in_instructions, parse_prompt

WORDINGS = 4


def written(drawn_scenes, write):
    """(scene drawn, text) of every scene in several wordings."""
    return [
        (drawn, write(drawn.scene, drawn.truth, np.random.default_rng((index, wording))))
        for index, drawn in enumerate(drawn_scenes)
        for wording in range(WORDINGS)
    ]


@pytest.fixture(scope="module")
def instructions(drawn_scenes):
    return written(drawn_scenes, captions.instruction)


@pytest.fixture(scope="module")
def thoughts(drawn_scenes):
    return written(drawn_scenes, chain_of_thought.cot)


def test_every_statement_of_an_instruction_holds_in_the_image(drawn_scenes, instructions):
    told = 0
    for drawn, prompt in instructions:
        claims = parse_prompt(prompt, names_in_instructions(drawn.truth))
        eye = Eye(drawn.scene, drawn.truth)
        assert claims.mentioned == tuple(range(1, len(drawn.truth.kinds) + 1)), prompt
        for claim in claims.relations:
            assert eye.sees(*claim), (claim, prompt)
        told += len(claims.relations)
    subjects = WORDINGS * sum(len(drawn.truth.kinds) for drawn in drawn_scenes)
    assert told > 0.6 * subjects, "instructions must say how subjects relate"


def test_what_stands_on_something_is_said_to(instructions):
    seen = 0
    for drawn, prompt in instructions:
        claims = parse_prompt(prompt, names_in_instructions(drawn.truth))
        for relation in drawn.truth.relations:
            if relation[1] == "on":
                assert relation in claims.relations, prompt
                seen += 1
    assert seen


def test_instructions_are_lower_case_short_and_without_colours_or_places(instructions):
    count, subjects = 0, 0
    colours = set(appearance.COLOURS)
    for drawn, prompt in instructions:
        assert prompt == prompt.lower() and "  " not in prompt and prompt.endswith(".")
        bare = re.sub(r"<image \d+>", "", prompt)
        assert not re.search(r"\d", bare), "no coordinates"
        told = re.sub(r"on [a-z ]+ sky|on [a-z ]+(?=[,.])|[a-z ]+ below, [a-z ]+ above|[a-z ]+ around", "", bare)
        assert not colours & set(re.findall("[a-z]+", told)), prompt
        count, subjects = count + len(bare.split()), subjects + len(drawn.truth.kinds)
    assert 4 < count / subjects < 8


def test_most_instructions_name_the_ground_and_the_sky_where_it_is_seen(instructions):
    grounds = {ground.split()[-1] for ground, _ in lexicon._PLACES.values()}
    named, skies = [], []
    for drawn, prompt in instructions:
        named.append(bool(grounds & set(re.findall("[a-z]+", prompt))))
        eye, target = (np.array(point) for point in (drawn.scene.camera.eye, drawn.scene.camera.target))
        rise = (target - eye)[1] / np.linalg.norm(target - eye)
        highest = np.arcsin(rise) + drawn.scene.camera.fov / 2  # of the rays through the upper edge
        assert highest > 0 or "sky" not in prompt, prompt
        skies.append("sky" in prompt or highest < 0.05)
    assert 0.8 < np.mean(named) < 1 and 0.8 < np.mean(skies) < 1


def test_a_subject_of_several_images_names_them_side_by_side(drawn_scenes):
    drawn = next(d for d in drawn_scenes if len(d.truth.kinds) == 3)
    for wording in range(10):
        rng = np.random.default_rng(wording)
        prompt = captions.instruction(drawn.scene, drawn.truth, rng, [(1, 2), (3,), (4, 5, 6)])
        firsts = list(dict.fromkeys(re.findall(r"<image (\d)>", prompt)))
        assert firsts == list("123456")
        assert "<image 1> <image 2>" in prompt and "<image 4> <image 5> <image 6>" in prompt


def test_reordering_renumbers_the_subjects(drawn_scenes):
    scene = next(d.scene for d in drawn_scenes if len(d.scene.subjects) == 5)
    order = [3, 1, 4, 0, 2]
    new = captions.reordered(scene, order)
    assert [s.kind for s in new.subjects] == [scene.subjects[i].kind for i in order]
    assert [s.number for s in new.subjects] == [1, 2, 3, 4, 5]


def test_every_place_has_words():
    assert set(lexicon._PLACES) == set(appearance.PLACES)
    for name, (ground, second, zenith, horizon) in appearance.PLACES.items():
        around = appearance.Surroundings(ground, second, "plain", zenith, horizon, "open")
        assert lexicon.place_of(around) == name


# ---- thoughts ----

_PLACE = re.compile(r"\b(?P<row>upper |lower )?(?P<column>far left|left|centre|right|far right)(?=[,.])")


def entries_of(thought, kinds):
    """The entry of each subject, in order; the opening is left out."""
    sentences = [s + "." for s in thought.rstrip(".").split(". ")]
    sentences = sentences[-len(kinds) :]
    assert all(kind in sentence for kind, sentence in zip(kinds, sentences, strict=True)), thought
    return sentences


def subject_of(noun, truth):
    """The subject that "the red robot", "the robot", "subject 3" or "3" means."""
    if noun.split()[-1].isdigit():
        return int(noun.split()[-1])
    names = [
        n
        for n, (kind, colour) in enumerate(zip(truth.kinds, lexicon.colour_words(truth), strict=True), 1)
        if noun in (f"the {kind}", f"the {colour} {kind}")
    ]
    assert len(names) == 1, noun
    return names[0]


def test_places_are_true_of_the_masks_centroid(thoughts):
    columns = {"far left": (0, 0.2), "left": (0.2, 0.4), "centre": (0.4, 0.6), "right": (0.6, 0.8)}
    rows = {"upper ": (0, 0.4), None: (0.4, 0.6), "lower ": (0.6, 1)}
    for drawn, thought in thoughts:
        for n, entry in enumerate(entries_of(thought, drawn.truth.kinds), 1):
            found = _PLACE.search(entry)
            x, y = Eye(drawn.scene, drawn.truth).middle(n) + np.full(2, 0.5 / 64)
            left, right = columns.get(found["column"], (0.8, 1))
            top, bottom = rows[found["row"]]
            assert left <= x <= right and top <= y <= bottom, (entry, x, y)


def test_whoever_is_near_stands_before_whoever_is_far_back(thoughts):
    checked = 0
    for drawn, thought in thoughts:
        order, entries = drawn.truth.depth_order, entries_of(thought, drawn.truth.kinds)
        near = [n for n, entry in enumerate(entries, 1) if re.search(r"\bnear\b", entry)]
        far = [n for n, entry in enumerate(entries, 1) if "far back" in entry]
        assert len(set(near) | set(far)) == len(near) + len(far)
        for i, j in itertools.product(near, far):
            assert order.index(i) < order.index(j), thought
            checked += 1
    assert checked > 100


def test_in_a_level_row_nobody_is_near_or_far_back(drawn_scenes):
    scene = next(d.scene for d in drawn_scenes if len(d.scene.subjects) == 4)
    row = [replace(s, position=(float(x), 2.0)) for x, s in enumerate(scene.subjects)]
    assert set(lexicon.ranges(replace(scene, subjects=tuple(row)))) == {""}
    row[0] = replace(row[0], position=(0.0, 20.0))
    assert lexicon.ranges(replace(scene, subjects=tuple(row))) == ("far back", "near", "near", "near")


def test_relations_and_hiding_in_thoughts_hold(thoughts):
    relation = re.compile(
        r", (hides part of|partly hides|covers part of|partly behind|partly hidden by"
        r"|left of|right of|in front of|behind|next to|on) (the [a-z ]+|subject \d+|\d+)\.$"
    )
    hides = ("hides part of", "partly hides", "covers part of")
    checked = {"hides": 0, "other": 0}
    for drawn, thought in thoughts:
        eye = Eye(drawn.scene, drawn.truth)
        for n, entry in enumerate(entries_of(thought, drawn.truth.kinds), 1):
            found = relation.search(entry)
            if not found:
                continue
            name, other = found[1], subject_of(found[2], drawn.truth)
            if name in hides:
                assert eye.sees(n, "hides", other) and eye.sees(n, "in front of", other), thought
            elif name.startswith("partly"):
                assert eye.sees(other, "hides", n) and eye.sees(other, "in front of", n), thought
            else:
                assert eye.sees(n, name, other), thought
            checked["hides" if name in hides or name.startswith("partly") else "other"] += 1
    assert checked["hides"] > 20 and checked["other"] > 50


def test_much_hidden_subjects_are_said_to_be(thoughts):
    for drawn, thought in thoughts:
        hidden = {j for _, name, j in drawn.truth.relations if name == "hides"}
        hiding = {i for i, name, _ in drawn.truth.relations if name == "hides"}
        for n, entry in enumerate(entries_of(thought, drawn.truth.kinds), 1):
            told = re.search(r"hid|cover|partly", entry)
            assert bool(told) == (n in hidden | hiding), thought


def test_colours_in_thoughts_are_those_of_the_pixels(thoughts):
    coloured = 0
    for drawn, thought in thoughts:
        truth = drawn.truth
        for n, (kind, entry) in enumerate(zip(truth.kinds, entries_of(thought, truth.kinds), strict=True)):
            who = entry[: entry.index(kind)]
            named = " and ".join(word for word in who.split() if word in paint.PAINTS)
            assert not named or paint.fits(named, truth.albedo, truth.masks[n]), entry
            coloured += bool(named)
    assert coloured > 100


def test_thoughts_are_short_and_the_vocabulary_small(drawn_scenes, instructions, thoughts):
    texts = [t for _, t in thoughts]
    subjects = WORDINGS * sum(len(drawn.truth.kinds) for drawn in drawn_scenes)
    assert 5 < sum(len(text.split()) for text in texts) / subjects < 9.5
    texts += [t for _, t in instructions]
    assert all(text == text.lower() and "  " not in text for text in texts)
    assert len({word for text in texts for word in re.findall(r"[a-z]+", text)}) < 200


def test_places_cover_the_image():
    assert lexicon.place(0.0, 0.0) == "upper far left"
    assert lexicon.place(0.5, 0.5) == "centre"
    assert lexicon.place(1.0, 1.0) == "lower far right"
    assert lexicon.place(0.3, 0.5) == "left"


def test_centres_are_means_of_pixels():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 1:3, 0:2] = True
    np.testing.assert_allclose(centroids(masks), [[0.25, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize("noun,expected", [("robot", "a robot"), ("umbrella", "an umbrella")])
def test_articles(noun, expected):
    assert lexicon.a_or_an(noun) == expected
