"""Questions: answered again from the id buffer alone, half yes, half no."""

import re
from collections import Counter

import numpy as np
from scenes import paint
from scenes.eye import Eye

from macro.scenes.language import lexicon, questions

SEEDS = 4


def asked(drawn_scenes):
    for index, drawn in enumerate(drawn_scenes):
        for seed in range(SEEDS):
            for text, answer in questions.ask(drawn.truth, np.random.default_rng((index, seed))):
                yield drawn, text, answer


def subject(noun, truth):
    """The one subject that a noun, coloured or not, means."""
    colours = lexicon.colour_words(truth)
    found = [n for n, kind in enumerate(truth.kinds, 1) if noun in (kind, f"{colours[n - 1]} {kind}")]
    assert len(found) == 1, noun
    return found[0]


def answer_again(text, drawn):
    """Looks at the image's ids, depth and palettes; returns (topic, answer)."""
    truth, eye = drawn.truth, Eye(drawn.scene, drawn.truth)
    colours = lexicon.colour_words(truth)
    visible = [n for n in range(1, len(truth.kinds) + 1) if truth.masks[n - 1].any()]
    if match := re.fullmatch(r"is there an? (.+) in the image\?", text):
        names = {truth.kinds[n - 1] for n in visible}
        names |= {f"{colours[n - 1]} {truth.kinds[n - 1]}" for n in visible}
        return "presence", match[1] in names
    if match := re.fullmatch(r"(?:are there|is there exactly) (\w+) (.+?)( in all)?\?", text):
        number, noun = lexicon.NUMBERS.index(match[1]), match[2]
        if match[3]:
            return "count", len(visible) == number
        kinds = [truth.kinds[n - 1] for n in visible]
        return "count", sum(noun in (kind, lexicon.plural(kind)) for kind in kinds) == number
    if match := re.fullmatch(r"is the (.+) mostly (\w+)\?", text):
        n = subject(match[1], truth)
        return "colour", paint.fits(match[2], truth.albedo, truth.masks[n - 1])
    if match := re.fullmatch(r"is the (.+) between the (.+) and the (.+)\?", text):
        i, j, k = (subject(noun, truth) for noun in match.groups())
        return "between", eye.sees(i, "between", (j, k))
    phrases = {phrase: name for name, forms in lexicon.PHRASES.items() for phrase in forms}
    either = "|".join(sorted(phrases, key=len, reverse=True))
    match = re.fullmatch(rf"is the (.+?) ({either}) the (.+)\?", text)
    i, j, name = subject(match[1], truth), subject(match[3], truth), phrases[match[2]]
    return name, eye.sees(i, name, j)


def test_answers_are_right(drawn_scenes):
    topics = Counter()
    for drawn, text, answer in asked(drawn_scenes):
        topic, again = answer_again(text, drawn)
        assert again == answer, text
        topics[topic, answer] += 1
    relations = ("left of", "right of", "in front of", "behind", "on", "between")
    for topic in ("presence", "count", "colour", *relations):
        assert topics[topic, True] and topics[topic, False], (topic, topics)


def test_half_are_yes(drawn_scenes):
    for index, drawn in enumerate(drawn_scenes):
        found = questions.ask(drawn.truth, np.random.default_rng(index), count=6)
        yes = sum(answer for _, answer in found)
        assert len({text for text, _ in found}) == len(found) == 6
        assert yes == 3
    all_of_them = [answer for _, _, answer in asked(drawn_scenes)]
    assert abs(np.mean(all_of_them) - 0.5) < 0.02


def test_a_no_is_never_a_near_miss(drawn_scenes):
    """Colours asked about in vain are unlike all three of the subject's."""
    for drawn, text, answer in asked(drawn_scenes):
        match = re.fullmatch(r"is the (.+) mostly (\w+)\?", text)
        if match and not answer:
            n = subject(match[1], drawn.truth)
            names = {paint.name_of(np.round(255 * rgb)) for rgb in drawn.truth.palettes[n - 1]}
            assert match[2] not in names | set(drawn.truth.colours[n - 1])
