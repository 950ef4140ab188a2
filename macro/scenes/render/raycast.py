"""Scenes to images: a ray caster in JAX, one pass for colours, albedo, subject ids, depth and silhouettes.

An image is cut into square tiles. For each tile the primitives whose bounds its rays can touch are listed,
and a loop over that list (no longer than needed) keeps the nearest hit of every sample; a second loop over
the same list shades the hits; a third, over the primitives between the tile's hits and the sun, casts hard
shadows. There is no gather or scatter per sample. On a CPU tiles run sequentially, so that the loops and
the branches on families, textures and marks are not flattened; on an accelerator they run in parallel under
`vmap`.

Only sample 0 of a pixel, through its middle, determines `ids`, `depth`, `albedo` and the amodal masks, so
these agree exactly. Read next: `primitives.py`, `textures.py`, `shading.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from macro.scenes.render import primitives, shading
from macro.scenes.render.scene_compiler import MAX_SUBJECTS, compile_scene, stack

__all__ = ["compile_scene", "render", "stack"]

TILE = 16
# The middle first, then three more on a circle, spread in x and in y alike.
_CIRCLE = [(0.38 * np.cos(a), 0.38 * np.sin(a)) for a in np.deg2rad([75.0, 195.0, 315.0])]
SAMPLES = np.array([(0.0, 0.0), *_CIRCLE], np.float32)


def _rays(scene, rows, columns, height, width):
    """Unit directions (three arrays) through image points, given in pixels from the top left corner."""
    right, up, forward = scene["basis"]

    def perspective():
        tangent = jnp.tan(0.5 * scene["fov"])
        x = (2.0 * columns - width) / height * tangent
        y = (1.0 - 2.0 * rows / height) * tangent
        length = jax.lax.rsqrt(x * x + y * y + 1.0)
        return tuple((x * right[i] + y * up[i] + forward[i]) * length for i in range(3))

    def equirectangular():
        longitude = (2.0 * columns / width - 1.0) * jnp.pi
        latitude = (0.5 - rows / height) * jnp.pi
        level, y = jnp.cos(latitude), jnp.sin(latitude)
        x, z = jnp.sin(longitude) * level, jnp.cos(longitude) * level
        return tuple(x * right[i] + y * up[i] + z * forward[i] for i in range(3))

    return jax.lax.cond(scene["fov"] > 0, perspective, equirectangular)


def _listed(mask):
    """Indices where `mask` holds, in order, and how many."""
    order = jnp.argsort(~mask, stable=True)
    return order, mask.sum()


def _in_view(scene, directions):
    """Which primitives a bundle of rays from the eye can touch: the bundle's cone against their balls."""
    axis = jnp.stack([d.mean() for d in directions])
    axis = axis / jnp.maximum(jnp.linalg.norm(axis), 1e-6)
    widest = sum(a * d for a, d in zip(axis, directions, strict=True)).min()
    half = jnp.arccos(jnp.clip(widest, -1.0, 1.0)) + 1e-3
    towards = scene["bound"][:, :3] - scene["eye"]
    radius = scene["bound"][:, 3]
    distance = jnp.maximum(jnp.linalg.norm(towards, axis=1), 1e-6)
    off_axis = jnp.arccos(jnp.clip(towards @ axis / distance, -1.0, 1.0))
    reach = jnp.arcsin(jnp.clip(radius / distance, 0.0, 1.0)) + 1e-3
    return (radius > 0) & ((off_axis < half + reach) | (distance <= radius))


def _hit(scene, k, origins, directions):
    return primitives.intersect(scene["family"][k], scene["shape"][k], scene["frame"][k], origins, directions)


def _nearest(scene, order, count, origins, directions, to_ground, silhouettes):
    """Nearest distance, and index of the primitive hit there (-1: none), of every ray; and the silhouettes.

    These are bool[12, TILE * TILE]: which subjects a pixel's first ray meets above the ground, hidden or not.
    """

    def visit(n, best):
        nearest, which, whole = best
        t = _hit(scene, order[n], origins, directions)
        closer = t < nearest
        if silhouettes:
            owner, first = scene["owner"][order[n]], t[: TILE * TILE]
            whole = whole.at[owner].set(whole[owner] | (first < to_ground[: TILE * TILE]) & (first < primitives.MISS))
        return jnp.where(closer, t, nearest), jnp.where(closer, order[n], which), whole

    shape = directions[0].shape
    whole = jnp.zeros((MAX_SUBJECTS if silhouettes else 0, TILE * TILE), bool)
    empty = jnp.full(shape, primitives.MISS), jnp.full(shape, -1, jnp.int32), whole
    return jax.lax.fori_loop(0, count, visit, empty)


def _shadow(scene, points, lit):
    """1 where the sun reaches a point, 0 where a primitive occludes it; computed only for `lit` points."""
    sun = scene["sun"]
    # Two axes across the sunlight: projected along it, a primitive is a disc and the tile's points are a
    # rectangle.
    across = jnp.stack([sun[2], jnp.zeros(()), -sun[0]])
    across = across / jnp.linalg.norm(across)
    down = jnp.cross(sun, across)
    inside = scene["bound"][:, 3] > 0
    for axis in (across, down):
        seen = sum(a * p for a, p in zip(axis, points, strict=True))
        low = jnp.where(lit, seen, jnp.inf).min()
        high = jnp.where(lit, seen, -jnp.inf).max()
        middle, radius = scene["bound"][:, :3] @ axis, scene["bound"][:, 3] + 1e-2
        inside &= (middle + radius > low) & (middle - radius < high)
    order, count = _listed(inside)

    def visit(n, open_to_sun):
        return open_to_sun & (_hit(scene, order[n], points, sun) == primitives.MISS)

    return jax.lax.fori_loop(0, count, visit, lit).astype(jnp.float32)


def _surfaces(scene, order, count, which, points):
    """Normal and albedo (three arrays each) of every hit on a primitive."""

    def visit(n, painted):
        k = order[n]
        here = which == k

        def paint():
            fresh = shading.surface(jax.tree.map(lambda a: a[k], _per_primitive(scene)), points)
            return tuple(jnp.where(here, new, old) for new, old in zip(fresh, painted, strict=True))

        return jax.lax.cond(here.any(), paint, lambda: painted)

    blank = jnp.zeros_like(points[0])
    painted = jax.lax.fori_loop(0, count, visit, (blank,) * 7)
    return painted[:3], painted[3:6], painted[6]


def _per_primitive(scene):
    keys = ("family", "shape", "frame", "skin", "phase", "texture", "mark", "mark_frame", "colours")
    return {key: scene[key] for key in keys}


def _tile_points(row, column, samples):
    """Sample positions of a tile in pixels, [samples * TILE * TILE], sample by sample."""
    inside = jnp.arange(TILE, dtype=jnp.float32) + 0.5
    offsets = jnp.asarray(SAMPLES[:samples])
    rows = row * TILE + inside[None, :, None] + offsets[:, 1, None, None]
    columns = column * TILE + inside[None, None, :] + offsets[:, 0, None, None]
    rows, columns = jnp.broadcast_arrays(rows, columns)
    return rows.reshape(-1), columns.reshape(-1)


def _to_srgb(linear):
    return jnp.round(255.0 * jnp.clip(linear, 0.0, 1.0) ** (1 / 2.2)).astype(jnp.uint8)


def _render_tile(scene, row, column, height, width, samples, silhouettes):
    rows, columns = _tile_points(row, column, samples)
    directions = _rays(scene, rows, columns, height, width)
    eye = tuple(scene["eye"])
    order, count = _listed(_in_view(scene, directions))
    to_ground = jnp.where(directions[1] < -1e-4, -eye[1] / directions[1], primitives.MISS)
    nearest, which, whole = _nearest(scene, order, count, eye, directions, to_ground, silhouettes)

    on_ground = (to_ground < nearest) & (to_ground > 0)
    which = jnp.where(on_ground, -1, which)
    nearest = jnp.where(on_ground, to_ground, nearest)
    solid = jnp.isfinite(nearest)
    reach = jnp.where(solid, nearest, 0.0)
    points = tuple(e + reach * d for e, d in zip(eye, directions, strict=True))

    normals, albedo, lift = _surfaces(scene, order, count, which, points)
    normals = tuple(jnp.where(on_ground, up, n) for up, n in zip((0.0, 1.0, 0.0), normals, strict=True))
    facing = sum(n * s for n, s in zip(normals, scene["sun"], strict=True))
    raised = tuple(p + 2e-3 * n for p, n in zip(points, normals, strict=True))
    lit = solid & (facing > 0) & (nearest < shading.SHADOW_REACH)
    open_to_sun = jnp.where(lit, _shadow(scene, raised, lit), (facing > 0).astype(jnp.float32))
    sun = jnp.maximum(facing, 0.0) * open_to_sun
    colour = shading.shade(scene, directions, points, nearest, on_ground, normals, albedo, lift, sun)
    colour = jnp.stack([c.reshape(samples, TILE, TILE).mean(0) for c in colour], axis=-1)
    middle = which[: TILE * TILE]
    ids = jnp.where(middle >= 0, scene["owner"][middle] + 1, 0)
    paint = jnp.stack([jnp.where(middle >= 0, a[: TILE * TILE], 0.0) for a in albedo], axis=-1)
    out = {
        "pixels": _to_srgb(colour),
        "albedo": _to_srgb(paint).reshape(TILE, TILE, 3),
        "ids": ids.reshape(TILE, TILE),
        "depth": nearest[: TILE * TILE].reshape(TILE, TILE),
    }
    return out | ({"amodal": jnp.moveaxis(whole.reshape(-1, TILE, TILE), 0, -1)} if silhouettes else {})


def _over_tiles(tile_of, batch, height, width):
    """`tile_of(scene, row, column)` of all tiles of all scenes, as arrays [b, height, width, ...]."""
    down, across = -(-height // TILE), -(-width // TILE)
    tiles = jnp.stack(jnp.meshgrid(jnp.arange(down), jnp.arange(across), indexing="ij"), -1).reshape(-1, 2)
    one_by_one = jax.default_backend() == "cpu"
    tiles_at_once, scenes_at_once = (None, None) if one_by_one else (tiles.shape[0], 8)

    def scene_of(scene):
        return jax.lax.map(lambda tile: tile_of(scene, *tile.astype(jnp.float32)), tiles, batch_size=tiles_at_once)

    out = jax.lax.map(scene_of, batch, batch_size=scenes_at_once)

    def whole(a):
        a = a.reshape(a.shape[0], down, across, *a.shape[2:]).swapaxes(2, 3)
        return a.reshape(a.shape[0], down * TILE, across * TILE, *a.shape[5:])[:, :height, :width]

    return jax.tree.map(whole, out)


@functools.partial(jax.jit, static_argnames=("height", "width", "samples", "silhouettes"))
def render(batch, height: int, width: int, samples: int = 4, silhouettes: bool = False):
    """Renders a batch of compiled scenes.

    Args:
      batch: arrays of `compile_scene`, stacked by `stack`.
      height, width: size of the images in pixels.
      samples: rays per pixel, 1 to 4.
      silhouettes: whether to give "amodal" too.

    Returns:
      dict of `pixels` uint8 [b, h, w, 3] (sRGB), `albedo` uint8 [b, h, w, 3] (sRGB: the paint of the subject
      there, without light; black in the background), `ids` int32 [b, h, w] (0 background, i + 1 the i-th
      subject), `depth` float32 [b, h, w] (metres along the ray through the pixel's middle; inf in the sky) and, if
      asked for, `amodal` bool [b, 12, h, w] (where each subject would be visible, above the ground, without the
      others).
    """
    tile_of = functools.partial(_render_tile, height=height, width=width, samples=samples, silhouettes=silhouettes)
    out = _over_tiles(tile_of, batch, height, width)
    return out | ({"amodal": jnp.moveaxis(out["amodal"], -1, 1)} if silhouettes else {})
