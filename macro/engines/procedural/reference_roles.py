"""Roles of the images in an instruction for a composition: a subject, a subject's cloth, the place, the light.

    "the <image 1> bear wearing the cloth of <image 3> stands left of the <image 2> teapot. the place is that of
    <image 4>. lit as in <image 5>."

Added to an instruction of `scenes/language/captions.py`, and parsed from the text alone.
Read next: `composition.py`, `judge.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_PLACES = ("the place is that of <image {}>.", "all of it in the scenery of <image {}>.")
_LIGHTS = ("the light is that of <image {}>.", "lit as in <image {}>.")
_WORN = " wearing the cloth of <image {}>"

_READ_WORN = re.compile(r"<image (\d+)>(?: [a-z]+)? wearing the cloth of <image (\d+)>")
_READ_PLACE = re.compile(r"(?:place is that|scenery) of <image (\d+)>")
_READ_LIGHT = re.compile(r"(?:light is that of|lit as in) <image (\d+)>")
_ASIDE = re.compile(rf"{_WORN.format(chr(92) + 'd+')}|[^.;]*(?:{_READ_PLACE.pattern}|{_READ_LIGHT.pattern})\.?")


@dataclass(frozen=True)
class Roles:
    """Numbers of images, from 1: `worn` is wearer -> cloth; `place` and `light` show the place and the light."""

    worn: Mapping[int, int] = field(default_factory=dict)
    place: int | None = None
    light: int | None = None

    def somebody(self, count: int) -> list[int]:
        """Which of `count` images show a subject of the composition."""
        others = {*self.worn.values(), self.place, self.light}
        return [n for n in range(1, count + 1) if n not in others]


def roles_for(categories: tuple[str, ...], rng: np.random.Generator) -> Roles:
    """Roles of images of these MACRO categories: each cloth is assigned a wearer of its own among the humans."""
    numbers = {name: [n for n, c in enumerate(categories, 1) if c == name] for name in set(categories)}
    humans, cloths = numbers.get("human", []), numbers.get("cloth", [])
    wearers = [humans[i] for i in rng.permutation(len(humans))]
    return Roles(
        worn=dict(zip(wearers, cloths, strict=False)),
        place=next(iter(numbers.get("scene", [])), None),
        light=next(iter(numbers.get("style", [])), None),
    )


def with_roles(instruction: str, roles: Roles, kinds: Mapping[int, str], rng: np.random.Generator) -> str:
    """The instruction, which names all subjects, with added text on who wears what, the place and the light.

    Args:
        kinds: of the subjects, by their images' numbers.
    """
    for wearer, cloth in roles.worn.items():
        bare, full = f"<image {wearer}>", f"<image {wearer}> {kinds[wearer]}"
        named = full if full in instruction else bare
        instruction = instruction.replace(named, named + _WORN.format(cloth), 1)
    said = [instruction]
    said += [str(rng.choice(_PLACES)).format(roles.place)] if roles.place else []
    said += [str(rng.choice(_LIGHTS)).format(roles.light)] if roles.light else []
    return " ".join(said)


def read_roles(prompt: str) -> Roles:
    """The roles that a prompt gives its images; those it does not mention show a subject."""
    place, light = _READ_PLACE.search(prompt), _READ_LIGHT.search(prompt)
    return Roles(
        worn={int(wearer): int(cloth) for wearer, cloth in _READ_WORN.findall(prompt)},
        place=int(place[1]) if place else None,
        light=int(light[1]) if light else None,
    )


def without_roles(prompt: str) -> str:
    """The prompt without the text that `with_roles` added."""
    return _ASIDE.sub("", prompt).strip()
