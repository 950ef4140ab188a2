"""What `captions.py` writes is read back as exactly the claims it was written from."""

import numpy as np
import pytest

from macro.scenes.language import captions, sentence_templates
from macro.scenes.language.lexicon import distinct_nouns, ground_words
from macro.scenes.language.prompt_parser import Claims, grounds, names_in_instructions, parse_prompt

NOUNS = {"dog": 1, "tree": 2, "car": 3, "ice cream": 4}
NOUNS |= {f"<image {n}>": n for n in (1, 2, 3)} | {f"<image {n}> {noun}": n for noun, n in NOUNS.items()}


@pytest.fixture
def said(monkeypatch):
    """The claims of every move that was chosen since it was last emptied."""
    log = []

    def choose(*asked):
        move = sentence_templates.choose_move(*asked)
        log.extend(move.claims)
        return move

    monkeypatch.setattr(captions, "choose_move", choose)
    return log


def test_instructions_are_read_back_exactly(drawn_scenes, said):
    relations = 0
    for seed, drawn in enumerate(drawn_scenes):
        scene, truth = drawn.scene, drawn.truth
        for way in range(2):
            said.clear()
            text = captions.instruction(scene, truth, np.random.default_rng([seed, way]))
            claims = parse_prompt(text, names_in_instructions(truth))
            assert set(claims.relations) == set(said), text
            assert sorted(claims.mentioned) == list(range(1, len(truth.kinds) + 1)), text
            assert claims.ground in (None, ground_words(scene.surroundings)), text
            relations += len(said)
    assert relations > 200


def test_captions_are_read_back_exactly(drawn_scenes, said):
    for seed, drawn in enumerate(drawn_scenes):
        scene, truth = drawn.scene, drawn.truth
        names = distinct_nouns(truth)
        if None in names:
            continue
        said.clear()
        text = captions.caption(scene, truth, np.random.default_rng(seed))
        claims = parse_prompt(text, {name: n for n, name in enumerate(names, 1)})
        assert set(claims.relations) == set(said), text


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("the dog is left of the tree and behind the car.", ((1, "left of", 2), (1, "behind", 3))),
        ("the dog is left of the tree, which is on top of the car.", ((1, "left of", 2), (2, "on", 3))),
        ("behind the tree stands the dog.", ((1, "behind", 2),)),
        ("the dog, the tree and the ice cream are from right to left.", ((1, "right of", 2), (2, "right of", 4))),
        ("between the tree and the dog, put the car.", ((3, "between", (1, 2)),)),
        ("the dog and the car are beside the tree.", ((1, "next to", 2), (3, "next to", 2))),
        ("the dog looks at the sky behind the house. a tree.", ()),
        ("on sand, the dog runs to the left of nobody.", ()),
        # Markers, alone or with a noun; two newcomers at once say nothing of each other.
        ("a <image 1> dog; a <image 3> car to the left of a <image 2> tree.", ((3, "left of", 2),)),
        ("<image 1>. <image 3>. the car is left of <image 2>.", ((3, "left of", 2),)),
        ("a dog and a car are to the left of a tree.", ((1, "left of", 2), (3, "left of", 2))),
        ("a dog, a car and a tree from left to right.", ((1, "left of", 3), (3, "left of", 2))),
        ("on grass under a blue sky, there is a <image 1> dog. a <image 3> car.", ()),
    ],
)
def test_each_way_to_say_it(text, relations):
    assert parse_prompt(text, NOUNS).relations == relations


def test_the_ground_is_heard_where_it_is_said():
    assert parse_prompt("all on striped orange sand under a pale sky.", NOUNS) == Claims((), (), "striped orange sand")
    assert parse_prompt("a dog; speckled snow below, a blue sky above.", NOUNS) == Claims((1,), (), "speckled snow")
    assert parse_prompt("a dog on a car, far from sandy tales.", NOUNS).ground is None
    assert len(set(grounds())) == len(grounds()) == 40
