"""Colours of a scene: distinct palettes, surroundings that contrast with them, and a light that keeps both so."""

import functools

import numpy as np

from macro.scenes.assets.palettes import COLOURS, colour_distance
from macro.scenes.graph import DECALS, RGB, TEXTURES, Light, Surroundings

# Ground, its second tone, zenith, horizon: soft colours, so that subjects lead.
PLACES: dict[str, tuple[RGB, RGB, RGB, RGB]] = {
    "meadow": ((0.60, 0.72, 0.44), (0.54, 0.67, 0.39), (0.38, 0.62, 0.90), (0.82, 0.91, 0.96)),
    "beach": ((0.90, 0.82, 0.64), (0.86, 0.76, 0.57), (0.33, 0.64, 0.88), (0.86, 0.94, 0.95)),
    "snow": ((0.90, 0.93, 0.97), (0.82, 0.87, 0.94), (0.46, 0.62, 0.84), (0.90, 0.93, 0.97)),
    "plaza": ((0.74, 0.71, 0.68), (0.67, 0.64, 0.62), (0.45, 0.66, 0.88), (0.88, 0.91, 0.93)),
    "evening": ((0.72, 0.62, 0.58), (0.66, 0.56, 0.54), (0.36, 0.40, 0.66), (0.99, 0.80, 0.62)),
    "lilac": ((0.78, 0.72, 0.82), (0.72, 0.66, 0.78), (0.56, 0.56, 0.84), (0.96, 0.86, 0.90)),
    "mint": ((0.70, 0.84, 0.78), (0.63, 0.79, 0.73), (0.44, 0.70, 0.84), (0.92, 0.96, 0.92)),
    "desert": ((0.87, 0.68, 0.50), (0.82, 0.61, 0.44), (0.40, 0.66, 0.86), (0.97, 0.90, 0.80)),
}
BACKDROPS: tuple[RGB, ...] = (
    (0.86, 0.84, 0.81),
    (0.80, 0.82, 0.85),
    (0.84, 0.86, 0.83),
    (0.76, 0.76, 0.77),
    (0.90, 0.89, 0.87),
)
APART_FROM_GROUND, APART_WITHIN = 0.13, 0.22


def surroundings(rng: np.random.Generator) -> Surroundings:
    """Surroundings under an open sky."""
    ground, second, zenith, horizon = PLACES[str(rng.choice(list(PLACES)))]
    texture = str(rng.choice(["plain", "noise", "check", "dot"], p=[0.3, 0.4, 0.2, 0.1]))
    style = str(rng.choice(["open", "hills"], p=[0.5, 0.5]))
    return Surroundings(ground, second, texture, zenith, horizon, style)


def backdrop(rng: np.random.Generator) -> Surroundings:
    """A neutral, seamless background, for references."""
    ground = BACKDROPS[rng.integers(len(BACKDROPS))]
    light = tuple(0.5 + 0.5 * c for c in ground)
    return Surroundings(ground, ground, "plain", light, light, "studio")


def light(rng: np.random.Generator) -> Light:
    """A sun from behind the viewer's shoulder or the side, never from straight behind the subjects."""
    side = rng.choice([-1.0, 1.0])
    return Light(
        azimuth=float(side * rng.uniform(0.35, 1.5)),
        elevation=float(rng.uniform(0.65, 1.15)),
        warmth=float(rng.uniform(0.0, 0.7)),
        strength=float(rng.uniform(0.9, 1.1)),
    )


def palettes(rng: np.random.Generator, count: int, around: Surroundings) -> list[tuple[RGB, RGB, RGB]]:
    """`count` palettes: main colours distinct from each other and the ground, second and accent from the main."""
    names = [n for n in COLOURS if colour_distance(COLOURS[n], around.ground) > APART_FROM_GROUND]
    names = [names[i] for i in rng.permutation(len(names))]
    out = []
    for main in names[:count]:
        apart = _apart_within(main)
        second, accent = rng.choice(len(apart), 2, replace=False)
        out.append((COLOURS[main], COLOURS[apart[second]], COLOURS[apart[accent]]))
    return out


@functools.cache
def _apart_within(main: str) -> tuple[str, ...]:
    """Names of the colours that a subject of this main colour may have besides."""
    return tuple(n for n in COLOURS if colour_distance(COLOURS[n], COLOURS[main]) > APART_WITHIN)


def texture(rng: np.random.Generator) -> str:
    """A texture; plain more often than patterned."""
    return str(rng.choice(TEXTURES, p=[0.4, 0.15, 0.15, 0.15, 0.15]))


def seed(rng: np.random.Generator) -> int:
    """A subject's own seed (`Subject.seed`)."""
    return int(rng.integers(2**31))


def decal(rng: np.random.Generator) -> str | None:
    """A decal for about a third of the subjects."""
    return str(rng.choice(DECALS)) if rng.random() < 0.35 else None
