"""Closed-form ray intersections with six convex solids, each in its own local frame.

The six shapes belong to three families, given by `family`:

  QUADRIC  x^2 + z^2 <= q0 + q1 y + q2 y^2 with low <= y <= high: sphere, ellipsoid, cylinder, cone, and
           what the cut allows besides: domes, bowls, frustums.
  BOX      |x|, |y|, |z| <= 1.
  CAPSULE  all points within 1 of the segment from (0, -q0, 0) to (0, q0, 0).

A frame is affine, so a ray `o + t d` keeps its `t` when both `o` and `d` are taken into the frame;
directions must not be normalised there. The solids are convex: a ray hits at its latest entry, if that
precedes the first exit.

Read next: `scene_compiler.py` (shapes to frames), `raycast.py` (which ray meets what).
"""

import jax
import jax.numpy as jnp

QUADRIC, BOX, CAPSULE = 0, 1, 2
PARAMETERS = 5  # q0, q1, q2, low, high
MISS = jnp.inf
NEAREST = 1e-3  # metres: nearer hits are the surface that the ray starts from


def to_frame(affine, points):
    """Applies `affine` (3 rows of 4) to the three components in `points`."""
    x, y, z = points
    return tuple(row[0] * x + row[1] * y + row[2] * z + row[3] for row in affine)


def turn(affine, vectors):
    """As `to_frame`, for directions: without the translation."""
    x, y, z = vectors
    return tuple(row[0] * x + row[1] * y + row[2] * z for row in affine)


def _away_from_zero(x):
    return jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)


def _slab(o, d, low, high):
    """Entry and exit of a ray into low <= coordinate <= high."""
    inverse = 1.0 / _away_from_zero(d)
    first, second = (low - o) * inverse, (high - o) * inverse
    return jnp.minimum(first, second), jnp.maximum(first, second)


def _quadric(o, d, shape):
    (ox, oy, oz), (dx, dy, dz), (q0, q1, q2, low, high) = o, d, shape
    a = _away_from_zero(dx * dx + dz * dz - q2 * dy * dy)
    b = ox * dx + oz * dz - (0.5 * q1 + q2 * oy) * dy
    c = ox * ox + oz * oz - q0 - (q1 + q2 * oy) * oy
    discriminant = b * b - a * c
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    first, second = (-b - root) / a, (-b + root) / a
    # a < 0: a ray steeper than the cone's side. It is inside outside the roots, once in each nappe; the cut
    # keeps the lower nappe (radius shrinks with y), which a falling ray meets last and a rising one first.
    steep, falling = a < 0, dy < 0
    entry = jnp.where(steep, jnp.where(falling, first, -MISS), first)
    leave = jnp.where(steep, jnp.where(falling, MISS, second), second)
    cut_entry, cut_leave = _slab(oy, dy, low, high)
    entry, leave = jnp.maximum(entry, cut_entry), jnp.minimum(leave, cut_leave)
    return jnp.where((discriminant > 0) & (entry < leave), entry, MISS)


def _box(o, d, _):
    entries, exits = zip(*(_slab(oi, di, -1.0, 1.0) for oi, di in zip(o, d, strict=True)), strict=True)
    entry = jnp.maximum(jnp.maximum(entries[0], entries[1]), entries[2])
    leave = jnp.minimum(jnp.minimum(exits[0], exits[1]), exits[2])
    return jnp.where(entry < leave, entry, MISS)


def _capsule(o, d, shape):
    (ox, oy, oz), (dx, dy, dz), half = o, d, shape[0]
    a = _away_from_zero(dx * dx + dz * dz)
    b = ox * dx + oz * dz
    wall = b * b - a * (ox * ox + oz * oz - 1.0)
    entry = (-b - jnp.sqrt(jnp.maximum(wall, 0.0))) / a
    y = oy + entry * dy
    # Where the endless cylinder is entered beyond an end, only the ball at that end can be hit.
    oy = oy - jnp.clip(y, -half, half)
    a, b = a + dy * dy, b + oy * dy
    ball = b * b - a * (ox * ox + oy * oy + oz * oz - 1.0)
    beyond = jnp.abs(y) > half
    entry = jnp.where(beyond, (-b - jnp.sqrt(jnp.maximum(ball, 0.0))) / a, entry)
    return jnp.where((wall > 0) & (~beyond | (ball > 0)), entry, MISS)


def intersect(family, shape, affine, origins, directions):
    """Distance along each ray to its first entry into one primitive, `MISS` where there is none.

    Args:
      family: int32 scalar, QUADRIC, BOX or CAPSULE.
      shape: the family's five parameters, scalars.
      affine: [3, 4], from the world into the primitive's frame.
      origins, directions: three arrays (or scalars) each, world components; directions of unit length.

    Returns:
      Array of the rays' common shape, metres.
    """
    centre_ray = to_frame(affine, origins)
    slope = turn(affine, directions)
    # Start from the point nearest to the primitive's middle: far origins would cancel in float32.
    shift = -sum(o * d for o, d in zip(centre_ray, slope, strict=True)) / sum(d * d for d in slope)
    local = tuple(o + shift * d for o, d in zip(centre_ray, slope, strict=True))
    shape = tuple(shape[i] for i in range(PARAMETERS))
    t = shift + jax.lax.switch(family, (_quadric, _box, _capsule), local, slope, shape)
    return jnp.where(t > NEAREST, t, MISS)


def normal(family, shape, point):
    """Outward normal at a surface point, in the primitive's frame, not normalised.

    Takes and returns three component arrays; to the world by the transpose of the frame's linear part.
    """
    q0, q1, q2, low, high = (shape[i] for i in range(PARAMETERS))

    def quadric(x, y, z):
        nearest_cut = jnp.minimum(jnp.abs(y - low), jnp.abs(y - high))
        on_cut = (nearest_cut < 1e-3) & (x * x + z * z < q0 + (q1 + q2 * y) * y - 1e-3)
        up = jnp.where(y > 0.5 * (low + high), 1.0, -1.0)
        return (
            jnp.where(on_cut, 0.0, x),
            jnp.where(on_cut, up, -(0.5 * q1 + q2 * y)),
            jnp.where(on_cut, 0.0, z),
        )

    def box(x, y, z):
        ax, ay, az = jnp.abs(x), jnp.abs(y), jnp.abs(z)
        on_x, on_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
        on_z = ~on_x & ~on_y
        return tuple(jnp.where(on, jnp.sign(v), 0.0) for on, v in ((on_x, x), (on_y, y), (on_z, z)))

    def capsule(x, y, z):
        return x, y - jnp.clip(y, -q0, q0), z

    return jax.lax.switch(family, (quadric, box, capsule), *point)
