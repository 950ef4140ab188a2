"""Rigid animation with an event log: a cast, each one's actions over time, and the shots of them.

A `Script` defines every subject's state at any time, so each frame is a `Scene`, and all events are known exactly. Time
is divided into beats: in each, one subject acts (walks or drives to another, jumps, rises into the air, comes down,
turns), the others stand still, and the shot has its own camera. An action is in full progress at the middle of its
beat. A script can hold several episodes: other places with other casts.
Read next: `narration.py` (text about the changes between two scenes).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import GROUPS
from macro.scenes.graph import Camera, Light, Scene, Subject, Surroundings
from macro.scenes.layout.collision import extents_of
from macro.scenes.layout.placement import natural_scale
from macro.utils.errors import UserError

DRIVERS = ("car", "bus", "truck", "train", "boat")
FLYERS = ("rocket", "plane")
WALKERS = (*(kind for kind in GROUPS["animal"] if kind != "fish"), "robot", "snowman")
MOVERS = (*WALKERS, *DRIVERS, *FLYERS)
PROPS = tuple(kind for group in ("building", "furniture", "plant") for kind in GROUPS[group])

ACTIONS = ("goes", "leaves", "jumps", "rises", "lands", "turns")
_ROOM = 1.8  # metres from the middle of the stage to its edge
_STAGED = 0.9  # of their usual sizes: a stage of 3.6 metres holds up to five subjects
_GAP = 0.25  # metres left between subjects that meet
_RISE = 1.1  # metres


@dataclass(frozen=True)
class State:
    """The state of one subject: (x, z) on the ground, height above it, yaw; metres and radians."""

    position: tuple[float, float]
    height: float
    yaw: float


@dataclass(frozen=True)
class Action:
    """The action of one subject in one beat.

    `actor` is an index into the cast, `name` one of `ACTIONS`, `goal` the index it approaches or leaves, else None;
    `before` and `after` are its states at the beat's ends.
    """

    actor: int
    name: str
    goal: int | None
    before: State
    after: State


@dataclass(frozen=True)
class Beat:
    """One action, in one shot.

    `start` and `stop` are seconds, `states` all subjects' states at the start, `camera` the shot's.
    """

    start: float
    stop: float
    action: Action
    states: tuple[State, ...]
    camera: Camera


@dataclass(frozen=True)
class Episode:
    """Beats in one place with one cast, subjects numbered from 1; they keep their numbers in every frame."""

    cast: tuple[Subject, ...]
    light: Light
    surroundings: Surroundings
    seed: int
    beats: tuple[Beat, ...]


@dataclass(frozen=True)
class Script:
    """Episodes in order, without a gap in time."""

    episodes: tuple[Episode, ...]

    @property
    def beats(self) -> tuple[Beat, ...]:
        """The beats of all episodes, in order."""
        return tuple(beat for episode in self.episodes for beat in episode.beats)

    def at(self, seconds: float) -> Scene:
        """The frame at a time in seconds.

        Raises:
            ValueError: a time before the first beat or after the last.
        """
        for episode in self.episodes:
            for beat in episode.beats:
                if beat.start <= seconds < beat.stop:
                    return _frame(episode, beat, seconds)
        raise ValueError(f"{seconds} s: the script runs from {self.beats[0].start} to {self.beats[-1].stop} s")


# ---- states at a time ----


def _frame(episode: Episode, beat: Beat, seconds: float) -> Scene:
    share = (seconds - beat.start) / (beat.stop - beat.start)
    states = list(beat.states)
    states[beat.action.actor] = _during(beat.action, share)
    subjects = tuple(
        replace(subject, position=state.position, height=state.height, yaw=state.yaw)
        for subject, state in zip(episode.cast, states, strict=True)
    )
    return Scene(subjects, beat.camera, episode.light, episode.surroundings, episode.seed)


def _during(action: Action, share: float) -> State:
    """The actor's state when this share (0..1) of the beat has passed: it starts and stops gently."""
    done = share * share * (3 - 2 * share)
    (x0, z0), (x1, z1) = action.before.position, action.after.position
    height = action.before.height + done * (action.after.height - action.before.height)
    if action.name == "jumps":
        height += 4 * share * (1 - share) * 0.7
    # A moving subject faces its goal from the first fifth of the beat on.
    turned = min(5 * share, 1.0) if action.name in ("goes", "leaves") else done
    yaw = action.before.yaw + turned * (action.after.yaw - action.before.yaw)
    return State((x0 + done * (x1 - x0), z0 + done * (z1 - z0)), height, yaw)


_GOING = {**dict.fromkeys(WALKERS, "walks"), **dict.fromkeys(DRIVERS, "drives"), **dict.fromkeys(FLYERS, "rolls")}


def going(kind: str) -> str:
    """The verb for the motion of this kind: "walks", "drives", "rolls"."""
    return _GOING[kind]


# ---- writing a script ----


def write(rng: np.random.Generator, beats: int, seconds: float = 1.0, episodes: int = 1) -> Script:
    """A script with this total number of beats, each of about `seconds`.

    With two or more episodes, the first has the most beats and each of the others two.

    Raises:
        UserError: fewer than two beats for an episode.
    """
    if episodes < 1 or beats < 2 * episodes:
        raise UserError(f"beats: {beats} are too few for {episodes} episodes; each has at least two")
    counts = [beats - 2 * (episodes - 1), *[2] * (episodes - 1)]
    order = [counts[i] for i in rng.permutation(episodes)]
    kinds, props = [str(k) for k in rng.permutation(MOVERS)], [str(k) for k in rng.permutation(PROPS)]
    start, written = 0.0, []
    for count in order:
        movers, props_here = _taken(kinds, int(rng.integers(2, 4))), _taken(props, int(rng.integers(1, 3)))
        episode = _episode(rng, movers, props_here, count, start, seconds)
        start = episode.beats[-1].stop
        written.append(episode)
    return Script(tuple(written))


def _taken(kinds: list[str], count: int) -> list[str]:
    """Removes and returns the first of a list, so that no kind is in two episodes."""
    taken = kinds[:count]
    del kinds[:count]
    return taken


def _episode(
    rng: np.random.Generator, movers: list[str], props: list[str], count: int, start: float, seconds: float
) -> Episode:
    around = appearance.surroundings(rng)
    cast = _cast(rng, movers, props, around)
    states = [State(subject.position, 0.0, subject.yaw) for subject in cast]
    light, seed, beats, last = appearance.light(rng), int(rng.integers(2**31)), [], None
    for n in range(count):
        stop = start + seconds * float(rng.uniform(0.85, 1.25))
        action = _action(rng, cast, states, len(movers), last)
        beats.append(Beat(start, stop, action, tuple(states), _camera(rng, states, action, n)))
        states[action.actor], start, last = action.after, stop, action
    return Episode(cast, light, around, seed, tuple(beats))


def _cast(rng: np.random.Generator, movers: list[str], props: list[str], around: Surroundings) -> tuple[Subject, ...]:
    """Movers first, all apart on the stage: props at its back, movers before them; smaller if they find no room."""
    kinds = [*movers, *props]
    looks = [
        Subject(
            kind, palette, appearance.texture(rng), appearance.decal(rng), float(rng.uniform(0.92, 1.08)), (0.0, 0.0),
            0.0, float(rng.uniform(-0.8, 0.8)), float(rng.random()), n, appearance.seed(rng),
        )
        for n, (kind, palette) in enumerate(zip(kinds, appearance.palettes(rng, len(kinds), around), strict=True), 1)
    ]  # fmt: skip
    size = _STAGED
    while True:
        cast: list[Subject] = []
        for n, look in enumerate(looks):
            scaled = replace(look, scale=look.scale * size * natural_scale(look.kind))
            cast.append(_free(rng, scaled, cast, (-1.2, 0.4) if n < len(movers) else (0.9, _ROOM)))
        if all(_apart(a, b) for i, a in enumerate(cast) for b in cast[:i]):
            return tuple(cast)
        size *= 0.9


def _apart(one: Subject, other: Subject) -> bool:
    """Whether both can turn where they stand without touching."""
    return float(np.hypot(*np.subtract(one.position, other.position))) > _radius(one) + _radius(other)


def _free(rng: np.random.Generator, subject: Subject, others: Sequence[Subject], depth: tuple[float, float]) -> Subject:
    """The subject at that of some random positions in this range of depth that is farthest from all others."""
    places = np.stack([rng.uniform(-_ROOM, _ROOM, 24), rng.uniform(*depth, 24)], 1)
    best = places[0]
    if others:
        feet, radii = np.array([other.position for other in others]), np.array([_radius(other) for other in others])
        best = places[(np.linalg.norm(places[:, None] - feet[None], axis=-1) - radii).min(1).argmax()]
    return replace(subject, position=(float(best[0]), float(best[1])))


def _action(
    rng: np.random.Generator, cast: Sequence[Subject], states: Sequence[State], movers: int, last: Action | None
) -> Action:
    """A possible action of one of the movers; never the same one by the same actor twice in succession."""
    actors = [int(i) for i in rng.permutation(movers)]
    for actor in actors:
        kind, state = cast[actor].kind, states[actor]
        if state.height > 0:
            possible = ["lands"]
        else:
            own = "rises" if kind in FLYERS else "jumps" if kind in WALKERS else "turns"
            possible = ["goes", "goes", "leaves", "turns", own]
        for name in rng.permutation(possible):
            action = _done(rng, cast, states, actor, str(name))
            if action is not None and not (last and (last.actor, last.name) == (actor, action.name)):
                return action
    return _turn(rng, states, actors[0])


def _turn(rng: np.random.Generator, states: Sequence[State], actor: int) -> Action:
    state = states[actor]
    yaw = state.yaw + float(rng.choice([-1.0, 1.0]) * rng.uniform(1.6, 2.8))
    return Action(actor, "turns", None, state, replace(state, yaw=yaw))


def _done(
    rng: np.random.Generator, cast: Sequence[Subject], states: Sequence[State], actor: int, name: str
) -> Action | None:
    state = states[actor]
    if name == "turns":
        return _turn(rng, states, actor)
    if name == "jumps":
        return Action(actor, name, None, state, state)
    if name in ("rises", "lands"):
        return Action(actor, name, None, state, replace(state, height=_RISE if name == "rises" else 0.0))
    if name == "leaves":
        return _leaving(rng, cast, states, actor)
    for goal in rng.permutation(len(cast)):
        after = _arrival(cast, states, actor, int(goal))
        if after is not None:
            return Action(actor, "goes", int(goal), state, after)
    return None


def _arrival(cast: Sequence[Subject], states: Sequence[State], actor: int, goal: int) -> State | None:
    """A position next to the goal, on the line to it, if the path is long enough and unobstructed."""
    if goal == actor or states[goal].height > 0:
        return None
    here, there = np.array(states[actor].position), np.array(states[goal].position)
    way = float(np.linalg.norm(there - here))
    reach = _radius(cast[actor]) + _radius(cast[goal]) + _GAP
    if way < reach + 0.7:
        return None
    end = here + (there - here) * (way - reach) / way
    return _walked(states[actor], end) if _free_way(cast, states, actor, end, (goal,)) else None


def _leaving(rng: np.random.Generator, cast: Sequence[Subject], states: Sequence[State], actor: int) -> Action | None:
    """A move to a free position on the stage, away from the nearest subject."""
    here = np.array(states[actor].position)
    feet = np.array([state.position for state in states])
    away = np.linalg.norm(feet - here, axis=1)
    away[actor] = np.inf
    nearest = int(away.argmin())
    for end in np.stack([rng.uniform(-_ROOM, _ROOM, 16), rng.uniform(-1.4, 1.0, 16)], 1):
        farther = np.linalg.norm(end - feet[nearest]) > away[nearest] + 0.7
        if farther and _free_way(cast, states, actor, end, ()):
            return Action(actor, "leaves", nearest, states[actor], _walked(states[actor], end))
    return None


def _free_way(
    cast: Sequence[Subject], states: Sequence[State], actor: int, end: np.ndarray, goals: tuple[int, ...]
) -> bool:
    """Whether the straight path to `end` touches no subject but the goal."""
    here = np.array(states[actor].position)
    way = float(np.linalg.norm(end - here))
    ahead = (end - here) / way
    for n, (other, state) in enumerate(zip(cast, states, strict=True)):
        if n == actor or n in goals:
            continue
        foot = np.array(state.position)
        along = float(np.clip((foot - here) @ ahead, 0.0, way))
        if along > 0 and np.linalg.norm(here + along * ahead - foot) < _radius(other) + _radius(cast[actor]):
            return False
    return True


def _walked(state: State, end: np.ndarray) -> State:
    """The state at `end`, facing along the path walked."""
    across, deep = end - np.array(state.position)
    return State((float(end[0]), float(end[1])), 0.0, _nearest_turn(state.yaw, float(np.arctan2(-across, -deep))))


def _radius(subject: Subject) -> float:
    """Radius of the circle about its foot that holds it at any yaw, metres."""
    return subject.scale * extents_of(subject).reach


def _nearest_turn(start: float, end: float) -> float:
    """`end` plus the multiple of 2 pi that brings it nearest to `start`, to avoid full spins."""
    return end + 2 * np.pi * round((start - end) / (2 * np.pi))


def _camera(rng: np.random.Generator, states: Sequence[State], action: Action, number: int) -> Camera:
    """A view of the whole stage, or nearer to the actor; from another side than the shot before."""
    feet = np.array([*(s.position for s in states), action.after.position])
    middle = (feet.min(0) + feet.max(0)) / 2
    acting = (np.array(action.before.position) + np.array(action.after.position)) / 2
    near = number % 3 == 2
    focus = 0.4 * middle + 0.6 * acting if near else middle
    reach = max(1.3, float(np.linalg.norm(feet - focus, axis=1).max()) + 0.5) * (0.72 if near else 1.0)
    angle = float((1 if number % 2 else -1) * rng.uniform(0.2, 0.6))
    rise, fov = float(rng.uniform(0.18, 0.42)), 0.62
    away = reach / np.tan(fov / 2)
    lift = 0.45 + 0.5 * max(action.before.height, action.after.height)
    eye = (
        float(focus[0] + away * np.sin(angle) * np.cos(rise)), float(lift + away * np.sin(rise)),
        float(focus[1] - away * np.cos(angle) * np.cos(rise)),
    )  # fmt: skip
    return Camera("perspective", eye, (float(focus[0]), lift, float(focus[1])), fov)


def frames(script: Script, rate: float) -> tuple[tuple[Scene, ...], tuple[float, ...]]:
    """All frames at `rate` per second and their times in seconds; the first is half a frame after the start."""
    count = int(np.floor(script.beats[-1].stop * rate))
    moments = tuple((n + 0.5) / rate for n in range(count))
    return tuple(script.at(moment) for moment in moments), moments
