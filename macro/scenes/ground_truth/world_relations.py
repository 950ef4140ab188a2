"""Which relations hold between placed subjects, with room to spare, on the ground and in the picture alike.

`relate` picks from all that hold a set that mentions every subject and connects them, rare names preferred.
"""

import itertools

import numpy as np

from macro.scenes.graph import Camera, Relation, Subject
from macro.scenes.layout.placement import picture_box, project, stands_on

# How much more often a name is picked where several hold.
_WEIGHTS = {
    "on": 50.0, "between": 3.0, "in front of": 2.0, "behind": 2.0,
    "left of": 1.0, "right of": 1.0, "next to": 2.0, "far from": 0.25,
}


class _Seen:
    """The picture's view of a subject: box, middle, and foot."""

    def __init__(self, camera: Camera, subject: Subject):
        self.subject = subject
        u0, v0, u1, v1 = picture_box(camera, subject)
        self.u, self.v, self.width, self.height = (u0 + u1) / 2, (v0 + v1) / 2, u1 - u0, v1 - v0
        foot = np.array([subject.position[0], subject.height, subject.position[1]])
        self.foot = project(camera, foot)[:2]


def _pair(a: _Seen, b: _Seen) -> list[str]:
    """Names that hold for "a ... b"."""
    if stands_on(a.subject, b.subject):
        return ["on"]
    if stands_on(b.subject, a.subject):
        return []
    du, dv = b.u - a.u, b.foot[1] - a.foot[1]
    wide = 0.5 * (a.width + b.width)
    level = a.subject.height == 0 and b.subject.height == 0
    names = []
    if abs(du) > max(0.10, 0.7 * wide) and abs(dv) < 0.8 * abs(du):
        names.append("left of" if du > 0 else "right of")
    if level and abs(du) < 0.7 * wide and abs(dv) > 0.07 and abs(dv) > 0.5 * abs(du) and (b.v - a.v) * dv > 0:
        names.append("behind" if dv > 0 else "in front of")
    if level and abs(dv) < 0.09 and 0.7 * wide < abs(du) < 1.5 * wide:
        names.append("next to")
    if np.hypot(du, b.v - a.v) > max(0.5, 1.7 * wide):
        names.append("far from")
    return names


def _between(a: _Seen, b: _Seen, c: _Seen) -> bool:
    """Whether `a` stands between `b` and `c`: near the middle of the line from one to the other."""
    if any(s.subject.height > 0 for s in (a, b, c)):
        return False
    line = np.array([c.u - b.u, c.foot[1] - b.foot[1]])
    to_a = np.array([a.u - b.u, a.foot[1] - b.foot[1]])
    length = np.hypot(*line)
    if length < 0.25 or abs(line[0]) < 0.2:
        return False
    along, aside = to_a @ line / length**2, abs(line[0] * to_a[1] - line[1] * to_a[0]) / length
    clear = min(abs(a.u - b.u), abs(a.u - c.u)) > 0.06
    return bool(0.25 < along < 0.75 and aside < 0.1 and clear and (a.u - b.u) * (c.u - a.u) > 0)


def holding(camera: Camera, subjects: tuple[Subject, ...]) -> list[Relation]:
    """All relations that clearly hold."""
    seen = [_Seen(camera, s) for s in subjects]
    out = [
        Relation(name, i, (j,))
        for i, j in itertools.permutations(range(len(seen)), 2)
        for name in _pair(seen[i], seen[j])
    ]
    for i in range(len(seen)):
        others = [j for j in range(len(seen)) if j != i]
        out += [
            Relation("between", i, (j, k))
            for j, k in itertools.combinations(others, 2)
            if _between(seen[i], seen[j], seen[k])
        ]
    return out


def relate(camera: Camera, subjects: tuple[Subject, ...], rng: np.random.Generator) -> tuple[Relation, ...]:
    """A connected choice of relations: each subject is tied to ones known before it; and a few extra ties."""
    every = holding(camera, subjects)
    chosen, known = [r for r in every if r.name == "on"], {0}

    def pick(options: list[Relation]) -> Relation:
        weights = np.array([_WEIGHTS[r.name] for r in options])
        return options[rng.choice(len(options), p=weights / weights.sum())]

    while len(known) < len(subjects):
        ties = [r for r in every if r.subject not in known and known.issuperset(r.objects)]
        if not ties:  # crowded pictures: the clearest left or right
            ties = [_clearest_side(camera, subjects, known)]
        tie = pick(ties)
        known.add(tie.subject)
        if tie not in chosen:
            chosen.append(tie)
    extras = [r for r in every if not any(_same_pair(r, c) for c in chosen)]
    for _ in range(int(rng.integers(0, 1 + len(subjects) // 3))):
        if extras:
            extra = pick(extras)
            chosen.append(extra)
            extras = [r for r in extras if not _same_pair(r, extra)]
    return tuple(chosen)


def _same_pair(a: Relation, b: Relation) -> bool:
    return {a.subject, *a.objects} == {b.subject, *b.objects}


def _clearest_side(camera: Camera, subjects: tuple[Subject, ...], known: set[int]) -> Relation:
    middle = [_Seen(camera, s).u for s in subjects]
    unknown = set(range(len(subjects))) - known
    _, i, j = max((abs(middle[i] - middle[j]), i, j) for i in unknown for j in known)
    return Relation("left of" if middle[i] < middle[j] else "right of", i, (j,))
