"""Each language stage: what it asks, what it makes of a good answer, and which answers it refuses."""

import json

import numpy as np
import pytest

from macro.engines import foundation
from macro.engines.foundation import prompts
from macro.engines.foundation.categories import CATEGORIES
from macro.engines.foundation.embeddings import Clip, Dino
from macro.engines.foundation.generators import FluxDraw
from macro.engines.foundation.language import Language
from macro.engines.foundation.orb_filter import OrbStillness
from macro.engines.material.types import EngineImage
from macro.engines.provider import (
    InterleavedCaption,
    JudgeRequest,
    Match,
    PromptRequest,
    Provider,
    Region,
    RewrittenPage,
    ScenePrompt,
    SceneRequest,
    Suitability,
)
from macro.judges.chat import Chat, parse_answer
from macro.judges.endpoint import Endpoint
from macro.judges.local import LocalChat
from macro.utils.errors import ItemError, UserError
from tests.judges.server import serving, written

RNG = np.random.default_rng(0)
A, B, C, D = (EngineImage(RNG.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(4))
DOG, LAMP = Region("dog", (0.1, 0.25, 0.5, 0.75)), Region("lamp", (0.6, 0.2, 0.9, 1.0), 0.8)
BRIEF = PromptRequest(A, (DOG, LAMP), (B, C), seed=9)
MATCHES = [Match("dog", DOG, LAMP), Match("lamp", LAMP, DOG)]


class Scripted(Chat):
    """A chat that always says the same, and remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def ask(self, asks):
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        self.asked.append(ask)
        try:
            return parse_answer(ask, json.dumps(self.answer))[1]
        except ItemError as error:
            return ItemError(str(error))


# Stage -> what it is called with, a good answer, what comes of it, which images it shows whole, in order.
CALLS = {
    "write_scene": (
        lambda talk: talk.write_scene([SceneRequest(("dog", "lamp", "tree"), 2)], [5]),
        {"labels": ["dog", "small  lamp"], "caption": "a dog\nbeside a lamp"},
        ScenePrompt("a dog beside a lamp", ("dog", "small lamp")),
        [],
    ),
    "tag": (lambda talk: talk.tag([A]), {"labels": ["dog", "lamp"]}, ["dog", "lamp"], [A]),
    "verify": (lambda talk: talk.verify([A], [[DOG, LAMP]]), {"correct": [True, False]}, [True, False], [A]),
    "caption": (lambda talk: talk.caption([A], [5]), {"caption": " a dog. "}, "a dog.", [A]),
    "describe": (lambda talk: talk.describe([A], [DOG], [5]), {"phrase": "a red dog."}, "a red dog", [A]),
    "merge": (
        lambda talk: talk.merge([A], ["a dog, a lamp"], [[DOG, LAMP]], [["a red dog", "a lamp"]], [5]),
        {
            "caption": "A dog by a lamp.",
            "phrases": [{"phrase": "lamp", "image": 2}, {"phrase": "dog", "image": 1}],
        },
        InterleavedCaption("A dog by a lamp.", {"lamp": 2, "dog": 1}),
        [],
    ),
    "instruct": (
        lambda talk: talk.instruct([BRIEF]),
        {"instruction": "the <image 2> lamp beside the <image 1> dog"},
        "the <image 2> lamp beside the <image 1> dog",
        [A, B, C],
    ),
    "think": (
        lambda talk: talk.think([BRIEF], ["<image 1> <image 2>"]),
        {"thought": "1 dog: left.\n2: right, behind 1."},
        "1 dog: left. 2: right, behind 1.",
        [A, B, C],
    ),
    "match": (
        lambda talk: talk.match([A], [B]),
        {"things": [{"label": "dog", "before": [0, 0, 0.5, 1], "after": [0.5, 0, 1, 1]}]},
        [("dog", (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))],
        [A, B],
    ),
    "changed": (lambda talk: talk.changed([A], [B]), {"difference": "none", "changed": False}, False, [A, B]),
    "narrate": (
        lambda talk: talk.narrate([A], [B], [MATCHES], [5]),
        {
            "caption": "The dog sits under the lamp.",
            "phrases": [{"phrase": "dog", "image": 1}, {"phrase": "lamp", "image": 2}],
        },
        InterleavedCaption("The dog sits under the lamp.", {"dog": 1, "lamp": 2}),
        [A, B],
    ),
    "rate": (
        lambda talk: talk.rate([[B, C]], [["human", "scene"]], [5]),
        {"descriptions": ["a man", "a beach"], "instruction": "<image 1> at <image 2>", "score": 8},
        Suitability(8.0, ("a man", "a beach"), "<image 1> at <image 2>"),
        [B, C],
    ),
    "rewrite": (
        lambda talk: talk.rewrite([["once", "then"]], [[A, B, C]], ["at last"], [D], [5]),
        {"kept": [3, 1], "text": "the fox of <image 1> in the wood of <image 2>"},
        RewrittenPage("the fox of <image 1> in the wood of <image 2>", (2, 0)),
        [A, B, C, D],
    ),
    "summarise": (lambda talk: talk.summarise([[A, B]], [5]), {"summary": "A dog runs."}, "A dog runs.", [A, B]),
    "judge": (
        lambda talk: talk.judge([JudgeRequest("spatial", "the back of <image 1>", (A,), B, C)]),
        {"observations": "well", "viewpoint": 6, "content": 8.5},
        {"viewpoint": 6.0, "content": 8.5},
        [A, C, B],
    ),
}


def answered(stage, answer):
    """(what comes of an answer, the question)."""
    chat = Scripted(answer)
    (value,) = CALLS[stage][0](Language(chat, chat, chat))
    return value, chat.asked[0]


@pytest.mark.parametrize("stage", CALLS)
def test_a_good_answer_becomes_what_the_stage_promises(stage):
    _, answer, expected, shown = CALLS[stage]
    value, ask = answered(stage, answer)
    if stage == "match":
        value = [(m.label, m.before.box, m.after.box) for m in value]
    assert value == expected
    told = json.loads(ask.parts[0])
    assert told["stage"] == stage and told["seed"] == ask.seed
    images = [part for part in ask.parts if not isinstance(part, str)]
    assert [id(p) for p in images if p.shape == (20, 30, 3)] == [id(p.pixels) for p in shown]
    for n, part in enumerate(ask.parts):  # every image comes after its name
        assert isinstance(part, str) or ask.parts[n - 1].endswith(":")


@pytest.mark.parametrize("stage", CALLS)
def test_an_answer_without_a_promised_field_is_a_fault(stage):
    answer = CALLS[stage][1]
    for left_out in answer:
        value, _ = answered(stage, {k: v for k, v in answer.items() if k != left_out})
        assert isinstance(value, ItemError) and left_out in value.reason


@pytest.mark.parametrize("stage", CALLS)
def test_an_answer_of_another_type_is_a_fault(stage):
    answer = CALLS[stage][1]
    for name in answer:
        value, _ = answered(stage, answer | {name: {"strange": None}})
        assert isinstance(value, ItemError) and name in value.reason


REFUSED = [
    ("write_scene", {"labels": ["cat"]}, "'cat' is none of the categories"),
    ("write_scene", {"labels": ["hotdog"]}, "none of the categories"),
    ("write_scene", {"labels": []}, "labels has 0 entries"),
    ("verify", {"correct": [True]}, "correct has 1 entries, not 2"),
    ("verify", {"correct": ["yes", "no"]}, "correct[0] is not true or false"),
    ("describe", {"phrase": " . "}, "phrase is empty"),
    ("merge", {"caption": "A cat by a lamp."}, "'dog', which has no place of its own in the caption"),
    ("merge", {"caption": "Dogs by a lamp."}, "'dog', which has no place of its own in the caption"),
    ("merge", {"caption": "<image 1> dog by a lamp."}, "marker"),
    ("merge", {"phrases": []}, "phrases has 0 entries, not 1 to 2"),
    ("merge", {"phrases": [{"phrase": "dog", "image": n} for n in (1, 2)]}, "given to two images"),
    ("merge", {"phrases": [{"phrase": word, "image": 1} for word in ("dog", "lamp")]}, "two phrases to one image"),
    ("merge", {"phrases": [{"phrase": "dog", "image": 1}, {"phrase": "lamp", "image": 3}]}, "outside 1 to 2"),
    ("merge", {"phrases": [{"phrase": "dog", "image": 1}, {"phrase": "lamp", "image": 2.0}]}, "not a whole number"),
    ("instruct", {"instruction": "the <image 1> dog and a lamp"}, "lacks <image 2>"),
    ("instruct", {"instruction": "<image 1> <image 2> <image 3>"}, "names <image 3>"),
    ("instruct", {"instruction": "<image 0> <image 1> <image 2>"}, "count from <image 1>"),
    ("think", {"thought": "1 dog: left."}, "nothing of subject 2, the lamp"),
    ("think", {"thought": "the dog is 12 steps from a lampshade"}, "nothing of subject 2"),
    ("think", {"thought": "dog, lamp</think>"}, "</think>"),
    ("match", {"things": [{"label": "dog", "before": [0, 0, 1.2, 1], "after": [0, 0, 1, 1]}]}, "1.2, outside 0 to 1"),
    ("match", {"things": [{"label": "dog", "before": [0.5, 0, 0.5, 1], "after": [0, 0, 1, 1]}]}, "is empty"),
    ("match", {"things": [{"label": "dog", "before": [0, 0, 1], "after": [0, 0, 1, 1]}]}, "has 3 entries"),
    ("match", {"things": [{"label": "dog", "before": [0, 0, 1, 1], "after": [0, 0, 1, 1]}] * 2}, "'dog' stands twice"),
    ("rate", {"score": 11}, "outside 0 to 10"),
    ("rate", {"instruction": "<image 1> alone"}, "lacks <image 2>"),
    ("rate", {"descriptions": ["one"]}, "descriptions has 1 entries, not 2"),
    ("rewrite", {"kept": [1, 1]}, "twice"),
    ("rewrite", {"kept": [0, 1]}, "outside 1 to 3"),
    ("rewrite", {"kept": [1, 4]}, "outside 1 to 3"),
    ("rewrite", {"kept": [1]}, "names <image 2>"),
    ("rewrite", {"kept": [1, 2, 3]}, "lacks <image 3>"),
    ("summarise", {"summary": "word " * 50}, "50 words; it must have fewer than 50"),
    ("judge", {"content": -1}, "content is -1, outside 0 to 10"),
]


@pytest.mark.parametrize(("stage", "wrong", "reason"), REFUSED)
def test_a_wrong_answer_is_a_fault_with_its_reason(stage, wrong, reason):
    value, _ = answered(stage, CALLS[stage][1] | wrong)
    assert isinstance(value, ItemError) and reason in value.reason and "\n" not in value.reason


def test_limits_are_where_they_are_said_to_be():
    assert answered("summarise", {"summary": "word " * 49})[0] == "word " * 48 + "word"
    assert answered("tag", {"labels": []})[0] == []
    assert answered("match", {"things": []})[0] == []
    assert answered("rewrite", {"kept": [], "text": "a fox"})[0] == RewrittenPage("a fox", ())


def test_boxes_are_told_and_shown_with_a_margin():
    _, ask = answered("verify", {"correct": [True, False]})
    assert json.loads(ask.parts[0])["regions"] == [
        {"number": 1, "label": "dog", "box": [0.1, 0.25, 0.5, 0.75]},
        {"number": 2, "label": "lamp", "box": [0.6, 0.2, 0.9, 1.0]},
    ]
    _, crop, _ = (part for part in ask.parts if not isinstance(part, str))
    # 3..15 of 30 columns and 5..15 of 20 rows, a tenth wider all round: whole pixels that it touches.
    np.testing.assert_array_equal(crop, A.pixels[4:16, 1:17])


def test_items_keep_their_places_whatever_becomes_of_the_others():
    chat = Scripted({"correct": [True]})
    talk = Language(chat, chat, chat)
    empty = Region("dog", (0.5, 0.5, 0.5, 0.5))
    good, none, stray, more = talk.verify([A, B, C, D], [[DOG], [], [empty], [DOG, LAMP]])
    assert good == [True] and none == [] and isinstance(stray, ItemError) and isinstance(more, ItemError)
    assert len(chat.asked) == 2  # neither the one without regions nor the one that shows nothing


def test_every_stage_has_a_prompt_of_its_own_and_says_what_it_is_given():
    for stage in set(CALLS) - {"judge"}:
        _, ask = answered(stage, CALLS[stage][1])
        told = json.loads(ask.parts[0])
        system = prompts.system(stage)
        named = [name for name in told if name not in ("stage", "seed", "references", "frames")]
        missing = [name for name in (*named, *ask.schema["properties"]) if f"`{name}`" not in system]
        assert not missing, f"{stage} never explains {missing}"


# ---- the bundle ----

NOWHERE = "http://127.0.0.1:9/v1"


class NoSources:
    """Material that no test here asks for."""

    def photo(self, seed, index):
        raise AssertionError("asked for material")

    clip = story = turntable = panorama = pooled = photo


def test_roles_of_one_model_share_it_and_local_ones_are_loaded_here(tmp_path):
    options = foundation.Options(llm="local:Qwen/Qwen3-8B", vlm="v", base_url=NOWHERE, cache=str(tmp_path))
    llm, vlm, judge = foundation.chats(options)
    assert isinstance(llm, LocalChat) and llm.model == "Qwen/Qwen3-8B"
    assert isinstance(vlm, Endpoint) and vlm is judge
    assert foundation.chats(foundation.Options(base_url=NOWHERE, judge="j")).judge.model == "j"


def test_the_bundle_has_every_stage_and_loads_nothing_yet(tmp_path):
    options = foundation.Options(llm="local:none", vlm="local:none", device="cpu", cache=str(tmp_path))
    provider = foundation.provider(options, NoSources())
    assert provider.categories == CATEGORIES
    stages = {name for name, stage in vars(Provider).items() if callable(stage) and name[0] != "_"} - {"replace"}
    assert stages <= vars(provider).keys()
    assert provider.remove_subjects([A, B], [[DOG], []]) == [None, None]


def test_vision_stages_have_settings_of_their_own_and_one_device():
    drawer, clip = FluxDraw("mine", steps=4, guidance=1.0), Clip(device="cuda:1")
    options = foundation.Options(base_url=NOWHERE, drawer=drawer, clip=clip, device="cpu")
    provider = foundation.provider(options, NoSources())
    assert provider.draw == FluxDraw("mine", "cpu", steps=4, guidance=1.0)
    assert provider.text_similarity == clip and provider.image_similarity == Dino(device="cpu")
    assert provider.static_share == OrbStillness()
    for wrong in ({"features": 0}, {"side": 0}, {"alike": -1}, {"still": 0.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            OrbStillness(**wrong)


def test_what_is_spent_is_told_once_and_of_each_endpoint_once(tmp_path):
    with serving(lambda request, count: written({"labels": []})) as server:
        options = foundation.Options(llm="l", vlm="v", base_url=server.url, cache=str(tmp_path))
        provider = foundation.provider(options, NoSources())
        assert provider.spent() == {}
        assert provider.tag([A, B]) == [[], []]
        assert provider.spent() == {"asked": 2, "tokens_in": 14, "tokens_out": 6}
        assert provider.spent() == {}
        provider.tag([A, C])
        assert provider.spent() == {"asked": 1, "cached": 1, "tokens_in": 7, "tokens_out": 3}


def test_without_an_endpoint_the_user_is_told(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set OPENAI_BASE_URL"):
        foundation.provider(foundation.Options(), NoSources())


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"retries": -1}, {"time_limit": 0}, {"categories": ()}])
def test_wrong_options(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        foundation.Options(**wrong)


def test_categories_are_singular_lower_case_and_different():
    assert len(set(CATEGORIES)) == len(CATEGORIES) >= 100
    assert all(category == " ".join(category.lower().split()) for category in CATEGORIES)
