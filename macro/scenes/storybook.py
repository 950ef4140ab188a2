"""Illustrated stories as scenes: characters that recur from page to page, places, and distractor images.

A tale has a hero and friends, each of a unique kind, who look the same on every page; they move through a few
places. Each page shows some of them, sometimes with a thing next to them; some pages show only the friends, and late
pages often all of them, so that a late page can need up to ten of the images before it. Between the pages are
distractors: images of other subjects, some of the hero's own kind in other colours.

`tale` is a pure function of the generator, `text_of` also of the page's ground truth: the text matches the image.
Read next: `captions.py`, `macro/engines/procedural/stories.py`.
"""

from dataclasses import dataclass, replace

import numpy as np

from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import FIGURES, KINDS, OBJECTS
from macro.scenes.assets.palettes import COLOURS, colour_distance
from macro.scenes.graph import RGB, Scene, Subject, Surroundings
from macro.scenes.language import captions
from macro.scenes.language.lexicon import a_or_an, colour_words, listed, phrase_of
from macro.scenes.layout import layout_sampler
from macro.sentence.spans import Truth

LEAST_PAGES, MOST_PAGES = 4, 11
NAMES = (
    "pip", "momo", "tilly", "bruno", "fay", "otto", "juno", "kit", "lulu", "max", "nell", "oscar", "poppy", "rolo",
    "suki", "teddy", "uma", "vito", "wren", "zoe",
)  # fmt: skip
_HERO, _GATHERING, _PROP, _MOVES = 0.85, 0.6, 0.5, 0.35  # chances, page by page
_CROWD = 6  # at most so many characters on a page
_ON_GOING = ("a little later,", "the next day,", "and then,", "after a while,", "one morning,")
_DOING = ("looked around", "had a rest", "went for a walk", "told a tale", "felt happy", "had an idea")


@dataclass(frozen=True)
class Character:
    """A character of a tale: a name, and the look that is the same on every page."""

    name: str
    look: Subject


@dataclass(frozen=True)
class Leaf:
    """A page: its scene, whose first subjects are `cast` (indices into `Tale.characters`), and the new ones of them."""

    scene: Scene
    cast: tuple[int, ...]
    fresh: tuple[int, ...]


@dataclass(frozen=True)
class Tale:
    """A story. A distractor (p, scene) precedes page p, from 1."""

    title: str
    characters: tuple[Character, ...]
    leaves: tuple[Leaf, ...]
    distractors: tuple[tuple[int, Scene], ...]


def tale(rng: np.random.Generator) -> Tale:
    """A story of 4 to 11 pages, three to seven characters and one to three distractors."""
    pages = int(rng.integers(LEAST_PAGES, MOST_PAGES + 1))
    places = _places(rng)
    characters = _characters(rng, int(rng.integers(3, 8)), places)
    leaves, known, place = [], set(), 0
    for page in range(pages):
        if page and rng.random() < _MOVES:
            place = int(rng.integers(len(places)))
        cast = _cast(rng, page, pages, known, len(characters))
        fresh = tuple(who for who in cast if who not in known)
        known |= set(cast)
        leaves.append(Leaf(_page(rng, [characters[who] for who in cast], places[place]), cast, fresh))
    strangers = sorted(int(p) for p in rng.integers(1, pages, int(rng.integers(1, 4))))
    distractors = tuple((p, _stranger(rng, characters, places)) for p in strangers)
    hero = characters[0]
    return Tale(f"{hero.name} the {hero.look.kind}", characters, tuple(leaves), distractors)


def _places(rng: np.random.Generator) -> tuple[Surroundings, ...]:
    """Two or three surroundings with different grounds."""
    found: list[Surroundings] = []
    wanted = int(rng.integers(2, 4))
    while len(found) < wanted:
        place = appearance.surroundings(rng)
        if all(place.ground != other.ground for other in found):
            found.append(place)
    return tuple(found)


def _characters(rng: np.random.Generator, count: int, places: tuple[Surroundings, ...]) -> tuple[Character, ...]:
    """Characters of different kinds, names and main colours, which contrast with every place."""
    kinds = rng.choice(FIGURES, count, replace=False)
    names = rng.choice(NAMES, count, replace=False)
    palettes = appearance.palettes(rng, len(COLOURS), places[0])
    palettes.sort(key=lambda palette: not _apart(palette[0], places))  # those with contrast first, else in their order
    return tuple(
        Character(str(name), _look(rng, str(kind), palette))
        for name, kind, palette in zip(names, kinds, palettes[:count], strict=True)
    )


def _apart(main: RGB, places: tuple[Surroundings, ...]) -> bool:
    return all(colour_distance(main, place.ground) > appearance.APART_FROM_GROUND for place in places)


def _look(rng: np.random.Generator, kind: str, palette: tuple[RGB, RGB, RGB]) -> Subject:
    texture, decal, seed = appearance.texture(rng), appearance.decal(rng), appearance.seed(rng)
    yaw = layout_sampler.yaw_of(rng)
    return Subject(kind, palette, texture, decal, 1.0, (0.0, 0.0), 0.0, yaw, float(rng.random()), 1, seed)


def _cast(rng: np.random.Generator, page: int, pages: int, known: set[int], count: int) -> tuple[int, ...]:
    """The characters on a page: mostly the hero, friends one by one; more on later pages, on the last often all."""
    if page == 0:
        return (0,)
    if page >= pages - 2 and rng.random() < _GATHERING:
        return tuple(sorted(known))[:_CROWD]
    hero = rng.random() < _HERO
    others = [int(who) for who in rng.permutation(np.arange(1, count))]
    # Friends appear one at a time: of those not introduced yet only the first may be on the page.
    new = min((who for who in range(1, count) if who not in known), default=count)
    others = [who for who in others if who in known or who == new]
    chosen = others[: int(rng.integers(0 if hero else 1, 3))]
    return tuple(sorted([0, *chosen] if hero else chosen)) or (0,)


def _page(rng: np.random.Generator, cast: list[Character], around: Surroundings) -> Scene:
    """The characters, each in a new pose, and sometimes a thing."""
    subjects = [replace(c.look, yaw=layout_sampler.yaw_of(rng), pose=float(rng.random())) for c in cast]
    if rng.random() < _PROP:
        taken = {subject.palette[0] for subject in subjects}
        palettes = [p for p in appearance.palettes(rng, len(COLOURS), around) if p[0] not in taken]
        subjects.append(_look(rng, str(rng.choice(OBJECTS)), palettes[0]))
    numbered = [replace(subject, number=n) for n, subject in enumerate(subjects, 1)]
    return layout_sampler.arrange(rng, numbered, around, layout_sampler.riders_of(rng, [s.kind for s in numbered]))


def _stranger(rng: np.random.Generator, characters: tuple[Character, ...], places: tuple[Surroundings, ...]) -> Scene:
    """An image of no page, without any character; half of them show one of the hero's kind in other colours."""
    looked_like = {c.look.palette[0] for c in characters}
    around = places[int(rng.integers(len(places)))]
    palettes = [p for p in appearance.palettes(rng, len(COLOURS), around) if p[0] not in looked_like]
    kinds = [str(kind) for kind in rng.choice(list(KINDS), int(rng.integers(1, 4)), replace=False)]
    if rng.random() < 0.5:
        kinds[0] = characters[0].look.kind
    subjects = [_look(rng, kind, palette) for kind, palette in zip(dict.fromkeys(kinds), palettes, strict=False)]
    numbered = [replace(subject, number=n) for n, subject in enumerate(subjects, 1)]
    return layout_sampler.arrange(rng, numbered, around, {})


# ---- text ----


def text_of(story: Tale, page: int, truth: Truth, rng: np.random.Generator) -> str:
    """The text of a page, true of its image.

    Args:
        page: from 0.
        truth: of the page's scene.
        rng: chooses the wording.
    """
    leaf = story.leaves[page]
    # A thing is in no image before this one: the text alone says what it looks like.
    things = {n + 1: phrase_of(truth, n) for n in range(len(leaf.cast), len(truth.kinds))}
    said = " ".join([_opening(story, page, truth, rng), captions.caption(leaf.scene, truth, rng, things)])
    return " ".join(said.split())


def _opening(story: Tale, page: int, truth: Truth, rng: np.random.Generator) -> str:
    """Names the known characters, and introduces the new ones."""
    leaf = story.leaves[page]
    colours = dict(zip(leaf.cast, colour_words(truth), strict=False))  # the cast are the page's first subjects
    new = [_introduced(story.characters[who], colours[who]) for who in leaf.fresh]
    old = [story.characters[who].name for who in leaf.cast if who not in leaf.fresh]
    if page == 0:
        return f"once upon a time there was {listed(new)}."
    start = "meanwhile," if 0 not in leaf.cast else str(rng.choice(_ON_GOING))
    if new and old:
        return f"{start} {listed(old)} met {listed(new)}."
    if new:
        return f"{start} {listed(new)}, came along."
    return f"{start} {listed(old)} {rng.choice(_DOING)}."


def _introduced(character: Character, colours: str) -> str:
    """ "pip, a red dog" """
    return f"{character.name}, {a_or_an(f'{colours} {character.look.kind}')}"
