"""Light on surfaces: a sun, a sky that fills the shade, the ground's glow, and haze.

  colour = albedo (sunlight max(n.l, 0) open + sky (1 + n_y) / 2 * crevice + bounce (1 - n_y) / 2) + sheen

`crevice` darkens what is close to the ground, blobs darken the ground under subjects: a cheap stand-in for ambient
occlusion that makes things stand instead of float. All colours are linear, all vectors triples of arrays.
"""

import jax.numpy as jnp

from macro.scenes import primitives, textures
from macro.scenes.assemble import CELLS

SHADOW_REACH = 45.0  # metres: farther shadows are below a pixel
SUN, SKY, BOUNCE = 0.85, 0.50, 0.22


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _unit(v):
    scale = 1.0 / jnp.sqrt(jnp.maximum(_dot(v, v), 1e-12))
    return tuple(x * scale for x in v)


def _mix(a, b, weight):
    return a + (b - a) * weight


def surface(primitive, points):
    """World normal (3), albedo (3) and height above the subject's foot (1, in units of its kind) at points on it."""
    frame = primitive["frame"]
    local = primitives.to_frame(frame, points)
    slope = primitives.normal(primitive["family"], primitive["shape"], local)
    world = _unit(tuple(_dot([frame[j][i] for j in range(3)], slope) for i in range(3)))
    skin = primitives.to_frame(primitive["skin"], points)
    cell = tuple(CELLS * s + primitive["phase"][i] for i, s in enumerate(skin))
    second = textures.texture(primitive["texture"], cell, primitives.turn(primitive["skin"], world))
    u, v, w = primitives.to_frame(primitive["mark_frame"], points)
    marked = textures.mark(primitive["mark"], u, v, w)
    base, other, mark = primitive["colours"]
    albedo = tuple(jnp.where(marked, mark[i], _mix(base[i], other[i], second)) for i in range(3))
    return (*world, *albedo, skin[1])


def _hill_line(x, z):
    """Height of the hills' outline as the tangent of its elevation, seen in direction (x, z)."""
    scale = 1.0 / jnp.sqrt(jnp.maximum(x * x + z * z, 1e-9))
    c, s = x * scale, z * scale
    waves = 0.5 * (4.0 * c * c - 3.0) * c + 0.3 * (16.0 * s**4 - 20.0 * s * s + 5.0) * s
    return 0.085 + 0.045 * waves


def _sky(scene, directions):
    horizon, zenith = scene["sky"]
    rise = jnp.sqrt(jnp.clip(directions[1], 0.0, 1.0))
    glow = jnp.maximum(_dot(directions, scene["sun"]), 0.0) ** 8
    sky = [_mix(horizon[i], zenith[i], rise) + 0.12 * glow * scene["sunlight"][i] for i in range(3)]
    across = jnp.sqrt(jnp.maximum(directions[0] ** 2 + directions[2] ** 2, 1e-9))
    hill = (scene["hills"] > 0) & (directions[1] < across * _hill_line(directions[0], directions[2]))
    far = [_mix(0.55 * scene["ground"][0][i], horizon[i], 0.45) for i in range(3)]
    return [jnp.where(hill, f, s) for f, s in zip(far, sky, strict=True)]


def _ground_albedo(scene, points, distance):
    cell = tuple(p + scene["ground_phase"][i] for i, p in enumerate((points[0], jnp.zeros_like(points[0]), points[2])))
    # Stripes vary along the second coordinate: give them the depth.
    cell = (cell[0], cell[2], cell[1])
    upwards = tuple(jnp.full_like(points[0], n) for n in (0.0, 0.0, 1.0))
    second = textures.texture(scene["ground_texture"], cell, upwards)
    fade = 1.0 / (1.0 + (distance / 14.0) ** 2)
    second = _mix(0.4, second, fade)
    return [_mix(scene["ground"][0][i], scene["ground"][1][i], second) for i in range(3)]


def _under(scene, points):
    """How much sky the ground still sees beside and under the subjects."""
    open_sky = 1.0
    for x, z, radius in scene["blobs"]:
        away = ((points[0] - x) ** 2 + (points[2] - z) ** 2) / jnp.maximum(radius * radius, 1e-6)
        open_sky = open_sky * (1.0 - 0.6 / (1.0 + away * away))
    return open_sky


def shade(scene, directions, points, distance, on_ground, normals, albedo, lift, sun):
    """Linear colour (three arrays) of every sample; `sun` is the cosine to the sun where it shines, else 0."""
    sky = _sky(scene, directions)
    ground = _ground_albedo(scene, points, distance)
    crevice = jnp.where(on_ground, _under(scene, points), 0.62 + 0.38 * jnp.clip(lift * 3.0, 0.0, 1.0))
    up = 0.5 + 0.5 * normals[1]
    half = _unit(tuple(s - d for s, d in zip(scene["sun"], directions, strict=True)))
    polish = jnp.maximum(_dot(normals, half), 0.0) ** 32 * jnp.where(on_ground, 0.0, 0.22) * (sun > 0)
    rim = jnp.clip(1.0 + _dot(normals, directions), 0.0, 1.0) ** 3 * jnp.where(on_ground, 0.0, 0.14) * up
    solid = jnp.isfinite(distance)
    haze = jnp.maximum(jnp.where(solid, distance, 0.0) - scene["haze"][0], 0.0) / scene["haze"][1]
    haze = haze * haze / (1.0 + haze * haze)
    out = []
    for i in range(3):
        own = jnp.where(on_ground, ground[i], albedo[i])
        fill = SKY * _mix(1.0, scene["sky"][1][i], 0.35) * up + BOUNCE * scene["ground"][0][i] * (1.0 - up)
        colour = own * (SUN * scene["sunlight"][i] * sun + fill * crevice) + polish + rim * scene["sky"][0][i]
        out.append(jnp.where(solid, _mix(colour, scene["sky"][0][i], haze), sky[i]))
    return out
