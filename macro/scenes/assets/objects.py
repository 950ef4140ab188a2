"""Kinds that are made or grow: vehicles, buildings, furniture, plants, food, instruments.

Each builder takes the pose parameter (0..1) and returns 3 to 7 parts (see `parts.py`).
"""

from math import pi

from macro.scenes.assets.parts import INK, LEAF, WOOD, Part, ball, box, cone, dome, pill, rod, turned

TYRE = (0.14, 0.14, 0.16)
STEEL = (0.72, 0.73, 0.76)
CREAM = (0.97, 0.92, 0.80)


def _axle(z: float, radius: float, half: float, colour=TYRE) -> Part:
    """A pair of wheels: one wide cylinder across the vehicle."""
    return rod((0, radius, z), (radius, half, radius), colour, (0, 0, pi / 2))


def car(pose: float) -> list[Part]:
    return [
        box((0, 0.28, 0), (0.27, 0.14, 0.60), decal=True, axis="side", mark_size=0.13),
        box((0, 0.52, 0.06), (0.23, 0.14, 0.32), 1, mark="windows", mark_size=0.21),
        _axle(-0.36, 0.15, 0.29),
        _axle(0.36, 0.15, 0.29),
        box((0, 0.30, -0.60), (0.22, 0.05, 0.02), (0.99, 0.95, 0.7)),
        box((0, 0.68 + 0.04 * pose, 0.06), (0.18, 0.03, 0.2), 2),
    ]


def bus(pose: float) -> list[Part]:
    return [
        box((0, 0.52, 0), (0.25, 0.34, 0.66), mark="windows", mark_size=0.24),
        box((0, 0.28, 0), (0.262, 0.07, 0.67), 1),
        _axle(-0.40, 0.13, 0.265),
        _axle(0.40, 0.13, 0.265),
        box((0, 0.89, 0.1 + 0.2 * pose), (0.16, 0.04, 0.24), 2),
    ]


def truck(pose: float) -> list[Part]:
    load = box((0, 0.56, 0.24), (0.26, 0.28, 0.44), decal=True, axis="side", mark_size=0.2)
    return [
        *turned([load], (0, 0.25, 0.68), (0.35 * pose, 0, 0)),
        box((0, 0.42, -0.44), (0.25, 0.25, 0.19), 1, mark="windows", mark_size=0.3),
        box((0, 0.21, 0.05), (0.20, 0.06, 0.66), INK),
        _axle(-0.42, 0.15, 0.27),
        _axle(0.42, 0.15, 0.27),
    ]


def train(pose: float) -> list[Part]:
    return [
        rod((0, 0.46, -0.16), (0.20, 0.48, 0.20), 0, (pi / 2, 0, 0), decal=True, axis="side", mark_size=0.16),
        box((0, 0.58, 0.42), (0.25, 0.36, 0.20), 1, mark="windows", mark_size=0.24),
        cone((0, 0.78, -0.46), (0.12, -0.16, 0.12), INK, top=0.55),
        box((0, 0.22, 0), (0.22, 0.06, 0.66), 2),
        *(_axle(z, 0.16, 0.24) for z in (-0.42, 0.40)),
        dome((0, 0.62, -0.08 - 0.06 * pose), (0.10, 0.16, 0.10), 2),
    ]


def plane(pose: float) -> list[Part]:
    parts = [
        pill((0, 0.34, 0), (0.14, 0.62, 0.14), 0, (pi / 2, 0, 0), decal=True, axis="side", mark_size=0.1),
        box((0, 0.32, -0.06), (0.74, 0.03, 0.16), 1),
        box((0, 0.42, 0.52), (0.28, 0.025, 0.09), 1),
        box((0, 0.56, 0.52), (0.03, 0.17, 0.10), 2),
        dome((0, 0.44, -0.30), (0.09, 0.12, 0.16), (0.25, 0.35, 0.5)),
        rod((0, 0.12, -0.10), (0.09, 0.10, 0.09), TYRE, (0, 0, pi / 2)),
    ]
    return turned(parts, (0, 0.1, 0), (0.22 * pose, 0, 0.2 * (pose - 0.5)))


def boat(pose: float) -> list[Part]:
    swing = (pose - 0.5) * 0.6
    sail = cone((0, 0.66, 0.10), (0.32, 0.42, 0.03), 1, (0, pi / 2, 0))
    return [
        dome((0, 0.24, 0), (0.27, -0.24, 0.58), decal=True, axis="side", mark_size=0.13),
        box((0, 0.24, 0), (0.22, 0.02, 0.44), WOOD),
        rod((0, 0.62, 0), (0.03, 0.46, 0.03), WOOD),
        *turned([sail], (0, 0.6, 0), (0, swing, 0)),
        box((0, 1.06, 0.12), (0.02, 0.06, 0.12), 2),
    ]


def rocket(pose: float) -> list[Part]:
    return turned([
        rod((0, 0.48, 0), (0.18, 0.30, 0.18), decal=True, mark_size=0.14),
        cone((0, 0.95, 0), (0.18, 0.19, 0.18), 1),
        cone((0, 0.12, 0), (0.13, 0.10, 0.13), INK, top=0.7),
        cone((0, 0.24, 0), (0.42, 0.24, 0.03), 1),
        cone((0, 0.24, 0), (0.03, 0.24, 0.42), 1),
        rod((0, 0.30, 0), (0.186, 0.03, 0.186), 2),
    ], (0, 0, 0), (0, (pose - 0.5), 0))


def house(pose: float) -> list[Part]:
    return [
        box((0, 0.28, 0), (0.36, 0.28, 0.34), mark="panes", mark_size=0.24),
        box((0, 0.54, 0), (0.30, 0.30, 0.38), 1, (0, 0, pi / 4)),
        box((0.20, 0.86, 0.12), (0.06, 0.16, 0.06), 2),
        box((0.0, 0.15, -0.34), (0.09, 0.16, 0.02 + 0.02 * pose), WOOD),
    ]


def castle(pose: float) -> list[Part]:
    return [
        box((0, 0.25, 0), (0.36, 0.25, 0.14), decal=True, mark_size=0.13),
        rod((-0.38, 0.35, 0), (0.17, 0.35, 0.17)),
        rod((0.38, 0.35, 0), (0.17, 0.35, 0.17)),
        cone((-0.38, 0.86, 0), (0.21, 0.17, 0.21), 1),
        cone((0.38, 0.86, 0), (0.21, 0.17, 0.21), 1),
        box((0, 0.53, 0), (0.24, 0.05, 0.10), 2),
        box((0, 0.13, -0.14), (0.10, 0.14, 0.02 + 0.01 * pose), INK),
    ]


def windmill(pose: float) -> list[Part]:
    blades = [
        box((0, 0.72, -0.24), (0.05, 0.46, 0.015), 2),
        box((0, 0.72, -0.24), (0.46, 0.05, 0.015), 2),
    ]
    return [
        cone((0, 0.38, 0), (0.27, 0.38, 0.27), top=0.65, decal=True, mark_size=0.12),
        dome((0, 0.75, 0), (0.20, 0.18, 0.20), 1),
        *turned(blades, (0, 0.72, -0.24), (0, 0, pi / 2 * pose)),
        ball((0, 0.72, -0.22), 0.06, INK),
        box((0, 0.13, -0.24), (0.08, 0.14, 0.03), WOOD),
    ]


def chair(pose: float) -> list[Part]:
    return [
        box((0, 0.42, 0), (0.27, 0.04, 0.27)),
        box((0, 0.76, 0.24), (0.27, 0.26, 0.035), 0, (0.25 * pose, 0, 0), decal=True, mark_size=0.18),
        *(rod((x, 0.20, z), (0.04, 0.20, 0.04), 1) for x in (-0.22, 0.22) for z in (-0.22, 0.22)),
    ]


def table(pose: float) -> list[Part]:
    spread = 0.40 + 0.05 * pose
    return [
        box((0, 0.56, 0), (0.60, 0.05, 0.40)),
        *(box((x, 0.26, z), (0.05, 0.26, 0.05), 1) for x in (-spread, spread) for z in (-0.3, 0.3)),
    ]


def stool(pose: float) -> list[Part]:
    splay = 0.14 + 0.08 * pose
    return [
        rod((0, 0.58, 0), (0.36, 0.06, 0.36)),
        rod((0, 0.66, 0), (0.33, 0.03, 0.33), 1),
        pill((-0.21, 0.28, -0.12), (0.05, 0.30, 0.05), 2, (splay, 0, -splay)),
        pill((0.21, 0.28, -0.12), (0.05, 0.30, 0.05), 2, (splay, 0, splay)),
        pill((0, 0.28, 0.22), (0.05, 0.30, 0.05), 2, (-splay, 0, 0)),
    ]


def crate(pose: float) -> list[Part]:
    rail = 0.18 + 0.06 * pose
    return [
        box((0, 0.34, 0), (0.38, 0.30, 0.38), decal=True, mark_size=0.17),
        box((0, 0.06, 0), (0.42, 0.06, 0.42), 1),
        box((0, 0.66, 0), (0.42, 0.06, 0.42), 1),
        box((-rail, 0.36, 0), (0.05, 0.26, 0.40), 1),
        box((rail, 0.36, 0), (0.05, 0.26, 0.40), 1),
    ]


def lamp(pose: float) -> list[Part]:
    shade = cone((0, 0.80, 0), (0.30, 0.20, 0.30), top=0.55, decal=True, mark_size=0.13)
    return [
        *turned([shade], (0, 0.7, 0), (0, 0, (pose - 0.5) * 0.5)),
        rod((0, 0.32, 0), (0.035, 0.32, 0.035), 1),
        cone((0, 0.05, 0), (0.22, 0.05, 0.22), 1, top=0.6),
        ball((0, 0.58, 0), 0.09, (1.0, 0.95, 0.7)),
    ]


def tree(pose: float) -> list[Part]:
    lean = (pose - 0.5) * 0.12
    return [
        cone((0, 0.20, 0), (0.10, 0.22, 0.10), WOOD, top=0.7),
        ball((lean, 0.62, 0), (0.34, 0.28, 0.32), decal=True, mark_size=0.16),
        ball((0.10 + lean, 0.84, 0.04), (0.22, 0.19, 0.22)),
        ball((-0.24 + lean, 0.54, -0.08), (0.19, 0.16, 0.19), 1),
    ]


def pine(pose: float) -> list[Part]:
    lean = (pose - 0.5) * 0.1
    return [
        rod((0, 0.10, 0), (0.08, 0.12, 0.08), WOOD),
        cone((0, 0.38, 0), (0.36, 0.20, 0.36)),
        cone((lean / 2, 0.62, 0), (0.29, 0.19, 0.29)),
        cone((lean, 0.86, 0), (0.21, 0.19, 0.21)),
        ball((lean, 1.06, 0), 0.06, 2),
    ]


def cactus(pose: float) -> list[Part]:
    lift = 0.1 * pose
    return [
        pill((0, 0.52, 0), (0.15, 0.48, 0.15), decal=True, mark_size=0.1),
        pill((-0.24, 0.42, 0), (0.075, 0.18, 0.075), 0, (0, 0, pi / 2)),
        pill((-0.36, 0.56 + lift / 2, 0), (0.075, 0.20 + lift / 2, 0.075)),
        pill((0.24, 0.56, 0), (0.075, 0.18, 0.075), 0, (0, 0, pi / 2)),
        pill((0.36, 0.68, 0), (0.075, 0.18, 0.075)),
        ball((0, 1.02, 0), (0.11, 0.06, 0.11), 2),
        cone((0, 0.06, 0), (0.26, -0.08, 0.26), 1, top=0.75),
    ]


def flower(pose: float) -> list[Part]:
    petals = [ball((0, 0.76, -0.05), (0.34, 0.12, 0.05), 0, (0, 0, angle)) for angle in (0, pi / 3, -pi / 3)]
    head = [*petals, ball((0, 0.76, -0.09), (0.13, 0.13, 0.07), 1)]
    return [
        rod((0, 0.34, 0), (0.035, 0.36, 0.035), LEAF),
        ball((0.14, 0.26, 0), (0.17, 0.05, 0.08), LEAF, (0, 0, 0.5)),
        cone((0, 0.07, 0), (0.18, -0.08, 0.18), 2, top=0.7),
        *turned(head, (0, 0.7, 0), (0, 0.0, (pose - 0.5) * 0.9)),
    ]


def mushroom(pose: float) -> list[Part]:
    tilt = (pose - 0.5) * 0.4
    return [
        cone((0, 0.28, 0), (0.20, 0.30, 0.20), CREAM, top=0.6),
        dome((0, 0.48, 0), (0.46, 0.40, 0.46), 0, (0, 0, tilt), decal=True, mark_size=0.16),
        rod((0, 0.47, 0), (0.42, 0.025, 0.42), 1, (0, 0, tilt)),
    ]


def teapot(pose: float) -> list[Part]:
    parts = [
        ball((0, 0.36, 0), (0.36, 0.33, 0.36), decal=True, axis="front", mark_size=0.18),
        pill((0.46, 0.44, 0), (0.065, 0.24, 0.065), 0, (0, 0, -0.75)),
        rod((-0.38, 0.38, 0), (0.20, 0.045, 0.20), 1, (pi / 2, 0, 0)),
        dome((0, 0.62, 0), (0.21, 0.12, 0.21), 1),
        ball((0, 0.78, 0), 0.07, 2),
        rod((0, 0.04, 0), (0.22, 0.04, 0.22), 1),
    ]
    return turned(parts, (0, 0.04, 0), (0, (pose - 0.5) * 0.8, 0))


def bottle(pose: float) -> list[Part]:
    return turned([
        rod((0, 0.30, 0), (0.20, 0.30, 0.20)),
        dome((0, 0.60, 0), (0.20, 0.18, 0.20)),
        rod((0, 0.80, 0), (0.075, 0.14, 0.075)),
        rod((0, 0.95, 0), (0.095, 0.05, 0.095), 1),
        rod((0, 0.32, 0), (0.206, 0.15, 0.206), 1, decal=True, mark_size=0.14),
    ], (0, 0, 0), (0, pose - 0.5, 0))


def cake(pose: float) -> list[Part]:
    return [
        rod((0, 0.02, 0), (0.52, 0.02, 0.52), STEEL),
        rod((0, 0.20, 0), (0.42, 0.16, 0.42), decal=True, mark_size=0.13),
        rod((0, 0.37, 0), (0.44, 0.03, 0.44), 1),
        rod((0, 0.50, 0), (0.27, 0.12, 0.27)),
        rod((0, 0.63, 0), (0.29, 0.03, 0.29), 1),
        rod((0.1 * (pose - 0.5), 0.76, 0), (0.035, 0.12, 0.035), 2),
        ball((0.1 * (pose - 0.5), 0.92, 0), (0.04, 0.07, 0.04), (1.0, 0.75, 0.2)),
    ]


def ice_cream(pose: float) -> list[Part]:
    tilt = (pose - 0.5) * 0.25
    return turned([
        cone((0, 0.30, 0), (0.21, -0.30, 0.21), (0.85, 0.62, 0.35), top=0.12),
        ball((0, 0.68, 0), (0.25, 0.21, 0.25), decal=True, mark_size=0.13),
        ball((0, 0.92, 0), (0.19, 0.16, 0.19), 1),
        ball((0, 1.09, 0), 0.07, 2),
    ], (0, 0, 0), (0, 0, tilt))


def umbrella(pose: float) -> list[Part]:
    tilt = (pose - 0.5) * 0.5
    return turned([
        dome((0, 0.60, 0), (0.52, 0.36, 0.52), decal=True, mark_size=0.18),
        rod((0, 0.61, 0), (0.50, 0.012, 0.50), 1),
        rod((0, 0.40, 0), (0.028, 0.40, 0.028), WOOD),
        cone((0, 0.99, 0), (0.03, 0.06, 0.03), 2),
        pill((0.06, 0.05, 0), (0.04, 0.10, 0.04), 2, (0, 0, pi / 2)),
    ], (0, 0, 0), (0, 0, tilt))


def drum(pose: float) -> list[Part]:
    sticks = [
        pill((-0.10, 0.68, -0.05), (0.03, 0.28, 0.03), WOOD, (0.6, 0, 1.1)),
        pill((0.12, 0.70, 0.02), (0.03, 0.28, 0.03), WOOD, (-0.5, 0, -1.0 + 0.4 * pose)),
    ]
    return [
        rod((0, 0.29, 0), (0.40, 0.26, 0.40), decal=True, mark_size=0.18),
        rod((0, 0.06, 0), (0.43, 0.05, 0.43), 1),
        rod((0, 0.53, 0), (0.43, 0.05, 0.43), 1),
        rod((0, 0.565, 0), (0.38, 0.02, 0.38), CREAM),
        *sticks,
    ]


def guitar(pose: float) -> list[Part]:
    parts = [
        ball((0, 0.26, 0), (0.33, 0.26, 0.09)),
        ball((0, 0.54, 0), (0.24, 0.20, 0.085)),
        rod((0, 0.42, -0.07), (0.10, 0.03, 0.10), INK, (pi / 2, 0, 0)),
        box((0, 0.82, -0.06), (0.055, 0.30, 0.03), 1),
        box((0, 1.15, -0.05), (0.095, 0.10, 0.035), 2),
        box((0, 0.17, -0.09), (0.13, 0.03, 0.02), INK),
    ]
    return turned(parts, (0, 0, 0), (0.1, 0, (pose - 0.5) * 0.5))
