"""Text about the changes between scenes, derived only from the scene graphs.

    changes(before, after)          subjects that walk towards others, jump up, come down, turn, appear or leave
    summarise_changes(scenes, rng)  "on grass, a dog and a tree. first the dog walks towards the tree, then ..."
    follows(scenes, now, text)      how well `now` fits as the next scene

Subjects of two scenes are the same if all that a reference image fixes is equal: kind, colours, texture, emblem.
Distances are metres. Read next: `motion.py` (scripts that say the same from the inside).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.scenes.animation.motion import FLYERS, MOVERS, going
from macro.scenes.graph import Scene, Subject
from macro.scenes.language.lexicon import ORDINALS, a_or_an, ground_words, listed

MOST_WORDS = 49  # MACRO's summaries have under 50 words
MOVED, ROSE, TURNED = 0.3, 0.2, 0.5  # metres, metres, radians: smaller changes are ignored
_MOSTLY = 0.6  # of the distance moved, for a move towards or away from another subject


@dataclass(frozen=True)
class Change:
    """One change: `subject` is its index in the later scene, or in the earlier one for a subject that left.

    `words` are without its name ("jumps up"); `size` is its salience, about 1 for a move of a metre.
    """

    subject: int
    words: str
    size: float


def same(one: Subject, other: Subject) -> bool:
    """Whether subjects of two scenes are the same one: all that a reference image fixes is equal."""
    look = (one.kind, one.palette, one.texture, one.decal)
    return look == (other.kind, other.palette, other.texture, other.decal)


def tracked_subjects(before: Scene, after: Scene) -> dict[int, int]:
    """Index in the later scene -> index in the earlier one, for all subjects in both."""
    free, found = list(range(len(before.subjects))), {}
    for n, subject in enumerate(after.subjects):
        match = next((i for i in free if same(before.subjects[i], subject)), None)
        if match is not None:
            free.remove(match)
            found[n] = match
    return found


def names(scenes: Sequence[Scene]) -> dict[tuple, str]:
    """Names of all subjects in any of the scenes: "dog", or "first dog" where there are other dogs."""
    looks = dict.fromkeys((s.kind, s.palette) for scene in scenes for s in scene.subjects)
    shared, seen, called = Counter(kind for kind, _ in looks), Counter(), {}
    for kind, palette in looks:
        called[kind, palette] = kind if shared[kind] == 1 else f"{ORDINALS[seen[kind]]} {kind}"
        seen[kind] += 1
    return called


def changes(before: Scene, after: Scene) -> tuple[Change, ...]:
    """All changes between two scenes, the most salient first."""
    called, both = names((before, after)), tracked_subjects(before, after)
    found = [_change(before, after, both, n, called) for n in both]
    found += [Change(n, "comes", 1.0) for n in range(len(after.subjects)) if n not in both]
    gone = set(range(len(before.subjects))) - set(both.values())
    found += [Change(n, "is gone", 1.0) for n in sorted(gone)]
    return tuple(sorted((c for c in found if c is not None), key=lambda change: -change.size))


def _change(before: Scene, after: Scene, both: dict[int, int], subject: int, called: dict[tuple, str]) -> Change | None:
    old, new = before.subjects[both[subject]], after.subjects[subject]
    rise = new.height - old.height
    if abs(rise) > ROSE:
        up = "rises into the air" if new.kind in FLYERS else "jumps up"
        return Change(subject, up if rise > 0 else "comes down", 0.5 + abs(rise))
    way = float(np.hypot(*np.subtract(new.position, old.position)))
    if way > MOVED:
        return Change(subject, _way(before, after, both, subject, called), way)
    turn = abs(float((new.yaw - old.yaw + np.pi) % (2 * np.pi) - np.pi))
    return Change(subject, "turns round", 0.3 * turn) if turn > TURNED else None


def _way(before: Scene, after: Scene, both: dict[int, int], subject: int, called: dict[tuple, str]) -> str:
    """Towards a subject that is near only at the end, else away from one that was near, else just on."""
    old, new = before.subjects[both[subject]], after.subjects[subject]
    verb = going(new.kind) if new.kind in MOVERS else "moves"
    way = np.hypot(*np.subtract(new.position, old.position))
    towards, away = [], []  # (distance at the end, name), (distance at the start, name)
    for n in both.keys() - {subject}:
        other = after.subjects[n]
        then, now = (float(np.hypot(*np.subtract(other.position, s.position))) for s in (old, new))
        name = called[other.kind, other.palette]
        towards += [(now, name)] if then - now > _MOSTLY * way else []
        away += [(then, name)] if now - then > _MOSTLY * way else []
    if towards:
        return f"{verb} towards the {min(towards)[1]}"
    return f"{verb} away from the {min(away)[1]}" if away else f"{verb} on"


_FIRST = ("first", "at first", "to begin with,")
_THEN = ("then", "next", "after that")
_LAST = ("at last", "in the end", "finally")


def summarise_changes(scenes: Sequence[Scene], rng: np.random.Generator, most: int = MOST_WORDS) -> str:
    """The changes between consecutive scenes in a limited number of words; `rng` chooses the wording.

    Each step from one scene to the next is described by its most salient change; repeats are described once. If
    the text is too long the least salient steps are left out, but never the last.

    Raises:
        ValueError: no scenes.
    """
    if not scenes:
        raise ValueError("summarise_changes: there are no scenes")
    told = [_told(before, after, names(scenes)) for before, after in zip(scenes[:-1], scenes[1:], strict=True)]
    steps = _once([step for step in told if step is not None])
    opening, joints = _opening(scenes), [str(rng.choice(words)) for words in (_FIRST, _THEN, _LAST)]
    while len(_joined(opening, steps, joints).split()) > most and len(steps) > 1:
        steps.remove(min(steps[:-1], key=lambda step: step[0]))
        steps = _once(steps)  # the last one mentioned may have left
    if len(scenes) == 1:
        return opening.strip()
    every, shown = set(names(scenes).values()), set(names(scenes[:1]).values())
    text = _joined(opening, _introduced(steps, every - shown), joints)
    return text if len(text.split()) <= most else _joined("", _introduced(steps[-1:], every), joints)


def _introduced(steps: Sequence[tuple[float, str]], unknown: set[str]) -> list[tuple[float, str]]:
    """The steps, with "a dog" for "the dog" where a name is new to the reader."""
    told, unknown = [], set(unknown)
    for size, text in steps:
        for name in sorted(unknown, key=len, reverse=True):
            if re.search(rf"\bthe {name}\b", text):
                text = re.sub(rf"\bthe {name}\b", a_or_an(name), text, count=1)
                unknown.discard(name)
        told.append((size, text))
    return told


def _once(steps: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The last of each run of equal neighbours."""
    return [step for n, step in enumerate(steps) if step[1] != next((later[1] for later in steps[n + 1 :]), "")]


def follows(before: Sequence[Scene], now: Scene, text: str) -> float:
    """How well a scene follows others and a text (from `summarise_changes`) about them: 0..1.

    1 where it shows a change since the last of them, of figures that they or the text know; .5 where the story moves on
    to another place; .2 where nothing has changed.
    """
    told = _told(before[-1], now, names((*before, now)))
    if told is None:
        return 0.2
    fresh = set(names((now,)).values()) - set(names(before).values())
    return 1.0 if tracked_subjects(before[-1], now) and all(name in text for name in fresh) else 0.5


def _told(before: Scene, after: Scene, called: dict[tuple, str]) -> tuple[float, str] | None:
    """(salience, text) of the most salient change; None where nothing changes."""
    if not tracked_subjects(before, after) and before.surroundings != after.surroundings:
        return 3.0, f"the story moves on to {ground_words(after.surroundings)}"
    found = changes(before, after)
    if not found:
        return None
    most = found[0]
    who = (before if most.words == "is gone" else after).subjects[most.subject]
    return most.size, f"the {called[who.kind, who.palette]} {most.words}"


def _opening(scenes: Sequence[Scene]) -> str:
    called, first = names(scenes), scenes[0]
    who = [a_or_an(called[s.kind, s.palette]) for s in first.subjects]
    return f"on {ground_words(first.surroundings)}, {listed(who) or 'nobody'}. "


def _joined(opening: str, steps: Sequence[tuple[float, str]], joints: Sequence[str]) -> str:
    if not steps:
        return f"{opening}nobody moves."
    first, then, last = joints
    words = [step[1] for step in steps]
    if len(words) == 1:
        return f"{opening}{words[0]}."
    middle = [f"{then if n % 2 == 0 else 'then'} {word}" for n, word in enumerate(words[1:-1])]
    return f"{opening}{', '.join([f'{first} {words[0]}', *middle, f'{last} {words[-1]}'])}."
