"""Surface patterns: textures that fill a surface, and marks on it.

A texture is a weight 0..1 of the second colour, from a point in texture units (one cell is one unit) and the
normal there. A mark is a weight 0..1 of its own colour, from coordinates `(u, v, w)` whose `w` points out
of the surface and in which the mark fills -1..1. Noise is value noise from an integer hash: the same on
every device.
"""

import jax
import jax.numpy as jnp

from macro.scenes.graph import DECALS, TEXTURES

MARKS = (None, "face", "windows", "panes", *DECALS)


def _hash(i, j, k):
    """Uniform 0..1 from three integers (int32 arrays)."""
    i, j, k = (v.astype(jnp.uint32) for v in (i, j, k))
    h = i * 374761393 + j * 668265263 + k * 2147483647
    h = (h ^ (h >> 13)) * jnp.uint32(1274126177)
    return (h ^ (h >> 16)).astype(jnp.float32) * (1.0 / 2**32)


def value_noise(x, y, z):
    """Smooth noise in 0..1 with features of about one unit."""
    cells = [jnp.floor(v) for v in (x, y, z)]
    low = [c.astype(jnp.int32) for c in cells]
    fx, fy, fz = ((f := v - c) * f * (3.0 - 2.0 * f) for v, c in zip((x, y, z), cells, strict=True))

    def edge(dy, dz):
        a, b = (_hash(low[0] + dx, low[1] + dy, low[2] + dz) for dx in (0, 1))
        return a + (b - a) * fx

    near, far = (edge(0, dz) + (edge(1, dz) - edge(0, dz)) * fy for dz in (0, 1))
    return near + (far - near) * fz


def _check(point, _):
    # Shifted by half a cell, so that the faces of a box at round coordinates are not on a cell border.
    parity = sum(jnp.floor(v + 0.31).astype(jnp.int32) for v in point) & 1
    return parity.astype(jnp.float32)


def _dot(point, normal):
    # Dots in the plane that the surface faces most, rows shifted against each other.
    ax, ay, az = (jnp.abs(n) for n in normal)
    along_x = (ax > ay) & (ax > az)
    along_y = (ay >= ax) & (ay > az)
    u = jnp.where(along_x, point[2], point[0])
    v = jnp.where(along_y, point[2], point[1])
    v = v * 1.15
    row = jnp.floor(v)
    u = u + 0.5 * (row.astype(jnp.int32) & 1).astype(jnp.float32)
    du, dv = u - jnp.floor(u) - 0.5, v - row - 0.5
    return (du * du + dv * dv < 0.1).astype(jnp.float32)


_TEXTURES = {
    "plain": lambda point, _: jnp.zeros_like(point[0]),
    "stripe": lambda point, _: (jnp.abs(point[1] - jnp.round(point[1])) < 0.19).astype(jnp.float32),
    "check": _check,
    "dot": _dot,
    "noise": lambda point, _: jnp.clip((value_noise(*(1.3 * v for v in point)) - 0.56) * 9.0 + 0.5, 0.0, 1.0),
}


def texture(index, point, normal):
    """Weight of the second colour under texture `TEXTURES[index]` (int32 scalar), at component triples."""
    return jax.lax.switch(index, [_TEXTURES[name] for name in TEXTURES], point, normal)


def _disc(u, v, radius):
    return (u * u + v * v) < radius * radius


def _face(u, v, w):
    """Two eyes and a nose, on the front only."""
    eyes = _disc(jnp.abs(u) - 0.42, (v - 0.22) * 0.85, 0.17)
    nose = _disc(u * 0.8, v + 0.18, 0.13)
    return (eyes | nose) & (w > 0)


def _windows(u, v, w):
    """A row of windows all around: a band at the height of the mark, cut by posts (on all vertical walls)."""
    along = jnp.where(jnp.abs(u) > jnp.abs(w), w, u)
    post = jnp.abs(along - jnp.round(along)) > 0.36
    return (jnp.abs(v) < 0.42) & ~post


def _panes(u, v, w):
    """Rows and columns of windows on every wall, one to a unit."""
    along = jnp.where(jnp.abs(u) > jnp.abs(w), w, u)
    fu, fv = along - jnp.floor(along) - 0.5, v - jnp.floor(v) - 0.5
    return (jnp.abs(fu) < 0.24) & (jnp.abs(fv) < 0.28)


def _star(u, v, _):
    """Five points: the angle folded into one point's half, cut by that point's edge."""
    angle = jnp.arctan2(u, v)
    sector = 2.0 * jnp.pi / 5.0
    folded = jnp.abs(angle - sector * jnp.round(angle / sector))
    radius = jnp.sqrt(u * u + v * v)
    # The edge runs from the tip (radius 1, angle 0) to the notch (radius .42, angle sector / 2).
    x, y = radius * jnp.cos(folded), radius * jnp.sin(folded)
    notch_x, notch_y = 0.45 * jnp.cos(sector / 2), 0.45 * jnp.sin(sector / 2)
    return (x - 1.0) * notch_y - y * (notch_x - 1.0) < 0.0


def _heart(u, v, _):
    v = 0.85 * v + 0.1 - 0.55 * jnp.sqrt(jnp.abs(u) + 1e-6)
    return _disc(0.9 * u, v, 0.72)


_MARKS = {
    None: lambda u, v, w: jnp.zeros(u.shape, bool),
    "face": _face,
    "windows": _windows,
    "panes": _panes,
    "spot": lambda u, v, w: _disc(u, v, 0.8),
    "ring": lambda u, v, w: _disc(u, v, 0.95) & ~_disc(u, v, 0.5),
    "star": _star,
    "heart": _heart,
}


def mark(index, u, v, w):
    """Where mark `MARKS[index]` (int32 scalar) covers the surface: boolean array.

    Marks that are not faces appear on the far side (`w < 0`) as well, so that more views show them.
    """
    return jax.lax.switch(index, [_MARKS[name] for name in MARKS], u, v, w)
