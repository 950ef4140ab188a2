"""Names of views, which of them are neighbours, and how far two views of one panorama overlap.

MACRO (arXiv 2603.25319), spatial task: a view of a panorama is approximated by a circular cap of half its field of view
around its axis. For the great-circle distance d of two axes, by the haversine,

    hav d = hav(pitch2 - pitch1) + cos pitch1 cos pitch2 hav(yaw2 - yaw1),      hav x = sin^2(x / 2)

and both caps approximated by flat discs of radius fov / 2 at distance d, the overlap is their shared area over that
of the smaller one. Angles are degrees; yaw grows to the right, pitch upwards. Read next: `spatial.py`.
"""

import math
from collections.abc import Iterable, Sequence

Degrees = float | int

# The eight horizontal views, 45 degrees apart. Of an object they name the position of the camera as seen from
# in front of it, counter-clockwise from above; of a place, where the camera looks, clockwise from above.
HORIZONTAL = ("front", "front_right", "right", "back_right", "back", "back_left", "left", "front_left")
POLES = ("top", "bottom")
LOW = "low_"  # prefix of the name of a view from near the ground
STEP = 45

YAWS: dict[str, int] = {name: STEP * n for n, name in enumerate(HORIZONTAL)}


def adjacent(name: str) -> tuple[str, ...]:
    """The two horizontal views next to a horizontal one; none for any other view."""
    if name not in YAWS:
        return ()
    at = HORIZONTAL.index(name)
    return HORIZONTAL[at - 1], HORIZONTAL[(at + 1) % len(HORIZONTAL)]


def has_neighbour(target: str, inputs: Iterable[str]) -> bool:
    """MACRO's rule for views of objects: a horizontal target needs a neighbouring view among the inputs.

    Our addition: a low one needs the view above it, or a neighbour of that.
    """
    above = target.removeprefix(LOW)
    beside = adjacent(above) if above == target else (above, *adjacent(above))
    return not beside or any(name in beside for name in inputs)


def distance(yaw1: Degrees, pitch1: Degrees, yaw2: Degrees, pitch2: Degrees) -> float:
    """Angle between two directions, degrees; a pitch beyond the zenith (100) looks down on the opposite side."""
    return math.degrees(_apart(yaw1, pitch1, yaw2, pitch2))


def _apart(yaw1: Degrees, pitch1: Degrees, yaw2: Degrees, pitch2: Degrees) -> float:
    """`distance` of angles in degrees, as radians."""
    yaw1, pitch1, yaw2, pitch2 = map(math.radians, (yaw1, pitch1, yaw2, pitch2))
    rise, turn = math.sin((pitch2 - pitch1) / 2), math.sin((yaw2 - yaw1) / 2)
    haversine = rise * rise + math.cos(pitch1) * math.cos(pitch2) * turn * turn
    return 2 * math.asin(math.sqrt(min(max(haversine, 0.0), 1.0)))


def view_overlap(yaw1: Degrees, pitch1: Degrees, yaw2: Degrees, pitch2: Degrees, fov1: Degrees, fov2: Degrees) -> float:
    """Overlap of two views of one panorama, 0..1: shared area of their caps over the smaller cap. All in degrees."""
    apart = _apart(yaw1, pitch1, yaw2, pitch2)
    large, small = sorted((math.radians(fov1) / 2, math.radians(fov2) / 2), reverse=True)
    if apart >= large + small:
        return 0.0
    if apart <= large - small:
        return 1.0
    first = (apart * apart + large * large - small * small) / (2 * apart * large)
    second = (apart * apart + small * small - large * large) / (2 * apart * small)
    # Heron's formula for the kite between the two centres and the two points where the circles cross.
    kite = (large + small - apart) * (apart + large - small) * (apart - large + small) * (apart + large + small)
    shared = large * large * _arc(first) + small * small * _arc(second) - 0.5 * math.sqrt(max(kite, 0.0))
    return shared / (math.pi * small * small)


def _arc(cosine: float) -> float:
    return math.acos(min(max(cosine, -1.0), 1.0))


def summed_up(overlaps: Sequence[float], rule: str) -> float:
    """A target's overlaps with its inputs as one number: the "largest" or the "mean", 0 for none."""
    if not overlaps:
        return 0.0
    return max(overlaps) if rule == "largest" else sum(overlaps) / len(overlaps)
