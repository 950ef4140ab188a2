"""Every colour word of a finished sample names what one sees of its subject: read from the painted pixels."""

import re
from collections import Counter

import pytest
from scenes import paint

from macro.engines import core, edit, inset, music, scenes
from macro.scenes.assets.catalog import KINDS
from macro.sentence.prompt import prompt_of
from tests.engines import exact

_COLOUR = "|".join(paint.PAINTS)
COLOURED = re.compile(rf"\b(?:mostly )?((?:{_COLOUR})(?: and (?:{_COLOUR}))?) ({'|'.join(KINDS)})\b")
MOSTLY = re.compile(rf"\bis the ({'|'.join(KINDS)}) mostly ({_COLOUR})\?")


def holds(words: str, kind: str, truth) -> bool:
    """Whether one subject of this kind looks like that."""
    of_kind = [mask for own, mask in zip(truth.kinds, truth.masks, strict=True) if own == kind and mask.any()]
    return any(paint.fits(words, truth.albedo, mask) for mask in of_kind)


def texts_of(sample) -> list[str]:
    """Prompt, chain of thought, labels and phrases; and questions that are answered with yes."""
    texts = [prompt_of(sample), *(region["label"] for region in sample.notes.get("regions", ()))]
    texts += [image.phrase for image in sample.images if image.phrase]
    texts += [sample.plan.cot] if sample.plan else []
    return texts + [text for text, answer in sample.truth.questions if answer]


def wrong_words(samples) -> tuple[list, Counter]:
    wrong, said = [], Counter()
    for sample in samples:
        for text in texts_of(sample):
            found = COLOURED.findall(text) + [(words, kind) for kind, words in MOSTLY.findall(text)]
            for words, kind in found:
                said[words.count(" and ") + 1] += 1
                if not holds(words, kind, sample.truth):
                    wrong.append((sample.idx, f"{words} {kind}", text))
    return wrong, said


ENGINES = {
    "music": (music.ENGINE, music.Options(size=64, reference_size=16)),
    "scenes": (scenes.ENGINE, scenes.Options(size=64, reference_size=16, rays=1)),
    "inset": (inset.ENGINE, inset.Options(reference_size=16)),
}


def samples_of(name: str, count: int, seed: int):
    engine, options = ENGINES[name]
    provider = exact.provider() if engine.needs_provider else None
    return core.make(engine, provider, options, seed, range(count)).samples


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_colour_word_is_seen(name):
    samples = samples_of(name, 16, seed=71)
    wrong, said = wrong_words(samples)
    assert not wrong, wrong
    assert said[1] > 20 and (name == "inset" or said[2] > 5), said


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENGINES))
def test_every_colour_word_is_seen_on_many_subjects(name):
    samples = samples_of(name, {"music": 130, "scenes": 130, "inset": 64}[name], seed=72)
    assert sum(len(sample.truth.kinds) for sample in samples) >= (200 if name == "inset" else 500)
    wrong, said = wrong_words(samples)
    assert not wrong, wrong[:5]
    assert said.total() > 400, said


def test_a_recoloured_subject_looks_like_its_new_colour():
    """The eye compares the two images of an edit."""
    options = edit.Options(size=64, reference_size=16, rays=1)
    samples = core.make(edit.ENGINE, None, options, 73, range(32)).samples
    painted = 0
    for sample in samples:
        # What goes is named as it was; the rest of the thought is about the target.
        thought = sample.plan.cot.split("all else stays.")[-1] if sample.plan else ""
        for words, kind in COLOURED.findall(thought):
            assert holds(words, kind, sample.truth), (sample.idx, words, kind)
        said = prompt_of(sample).replace("<image 1> ", "")
        found = re.search(rf"(?:paint|make|colour|let) the (.+?) (?:be )?({_COLOUR})(?= in |\.|$)", said)
        if found:
            painted += 1
            assert holds(found[2], found[1].split()[-1], sample.truth), said
    assert painted >= 2
