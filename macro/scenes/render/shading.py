"""Light on surfaces: a sun, a sky that fills the shade, the ground's glow, and haze.

  colour = albedo (sunlight max(n.l, 0) open + sky (1 + n_y) / 2 * crevice + bounce (1 - n_y) / 2) + sheen

`crevice` darkens surfaces close to the ground, blobs darken the ground under subjects: a cheap substitute for
ambient occlusion, without which subjects seem to float. All colours are linear, all vectors triples of
arrays.
"""

import jax
import jax.numpy as jnp

from macro.scenes.render import primitives, textures
from macro.scenes.render.scene_compiler import CELLS

SHADOW_REACH = 45.0  # metres: farther shadows are below a pixel
SUN, SKY, BOUNCE = 0.92, 0.50, 0.22
HILL_BLUE = (0.02, 0.05, 0.09)


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _unit(v):
    scale = 1.0 / jnp.sqrt(jnp.maximum(_dot(v, v), 1e-12))
    return tuple(x * scale for x in v)


def _mix(a, b, weight):
    return a + (b - a) * weight


def surface(primitive, points):
    """World normal (3), albedo (3), and height above the subject's foot in units of its kind (1)."""
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


def _hills(scene, directions, sky):
    """Two ranges of hills before the sky, the farther one paler."""
    x, y, z = directions
    azimuth = jnp.arctan2(x, z)
    rise = y * jax.lax.rsqrt(jnp.maximum(x * x + z * z, 1e-9))
    shift, horizon, ground = scene["ground_phase"][0], scene["sky"][0], scene["ground"][0]
    for height, wave, depth in ((0.075, 6.0, 0.72), (0.04, 10.0, 0.38)):
        phase = wave * azimuth + shift
        line = height + 0.5 * height * (jnp.sin(phase) * 0.7 + jnp.sin(2.3 * phase + shift) * 0.3)
        hill = (rise < line) & (scene["hills"] > 0)
        shade_of = [_mix(0.62 * ground[i] + HILL_BLUE[i], horizon[i], depth) for i in range(3)]
        sky = [jnp.where(hill, h, s) for h, s in zip(shade_of, sky, strict=True)]
    return sky


def _sky(scene, directions):
    """Gradient, glow around the sun, flat clouds, hills."""
    horizon, zenith = scene["sky"]
    x, y, z = directions
    rise = jnp.sqrt(jnp.clip(1.6 * y, 0.0, 1.0))
    glow = jnp.maximum(_dot(directions, scene["sun"]), 0.0) ** 8
    sky = [_mix(horizon[i], zenith[i], rise) + 0.12 * glow * scene["sunlight"][i] for i in range(3)]
    plane = 1.0 / (jnp.maximum(y, 0.0) + 0.06)
    a, b = x * plane + scene["ground_phase"][0], z * plane + scene["ground_phase"][2]
    still = jnp.zeros_like(a)
    billow = 0.65 * textures.value_noise(a, b, still) + 0.35 * textures.value_noise(2.6 * a, 2.6 * b, still)
    cloud = scene["clouds"] * jnp.clip(3.5 * (billow - 0.50), 0.0, 1.0) * jnp.clip(9.0 * y - 0.2, 0.0, 1.0)
    sky = [_mix(s, 0.55 + 0.45 * scene["sunlight"][i], 0.75 * cloud) for i, s in enumerate(sky)]
    return _hills(scene, directions, sky)


def _ground_albedo(scene, points, distance):
    # The ground is textured like a wall: its depth is the texture's second coordinate.
    phase, flat = scene["ground_phase"], jnp.zeros_like(points[0])
    cell = (points[0] + phase[0], points[2] + phase[2], flat + phase[1])
    upwards = (flat, flat, flat + 1.0)
    second = textures.texture(scene["ground_texture"], cell, upwards)
    # Far away a sample spans several cells: blend to the second colour's share over many cells.
    blur = jnp.where(jnp.isfinite(distance), distance, 0.0) ** 2 / (60.0 * scene["eye"][1])
    second = _mix(second, 0.4, blur * blur / (1.0 + blur * blur))
    return [_mix(scene["ground"][0][i], scene["ground"][1][i], second) for i in range(3)]


def _under(scene, points):
    """The share of sky visible from the ground next to and under the subjects."""
    open_sky = 1.0
    for x, z, radius in scene["blobs"]:
        away = ((points[0] - x) ** 2 + (points[2] - z) ** 2) / jnp.maximum(radius * radius, 1e-6)
        open_sky = open_sky * (1.0 - 0.6 / (1.0 + away * away))
    return open_sky


def shade(scene, directions, points, distance, on_ground, normals, albedo, lift, sun):
    """Linear colour (three arrays) of every sample; `sun`: cosine to the sun where it shines, else 0."""
    solid = jnp.isfinite(distance)
    sky = jax.lax.cond(
        solid.all(), lambda: [jnp.zeros_like(distance)] * 3, lambda: _sky(scene, directions)
    )
    ground = _ground_albedo(scene, points, distance)
    crevice = jnp.where(on_ground, _under(scene, points), 0.62 + 0.38 * jnp.clip(lift * 3.0, 0.0, 1.0))
    up = 0.5 + 0.5 * normals[1]
    half = _unit(tuple(s - d for s, d in zip(scene["sun"], directions, strict=True)))
    polish = jnp.maximum(_dot(normals, half), 0.0) ** 32 * jnp.where(on_ground, 0.0, 0.22) * (sun > 0)
    rim = jnp.clip(1.0 + _dot(normals, directions), 0.0, 1.0) ** 3 * jnp.where(on_ground, 0.0, 0.14) * up
    haze = jnp.maximum(jnp.where(solid, distance, 0.0) - scene["haze"][0], 0.0) / scene["haze"][1]
    haze = haze * haze / (1.0 + haze * haze) * (1.0 - 0.6 * scene["hills"])
    out = []
    for i in range(3):
        own = jnp.where(on_ground, ground[i], albedo[i])
        fill = SKY * _mix(1.0, scene["sky"][1][i], 0.35) * up + BOUNCE * scene["ground"][0][i] * (1.0 - up)
        colour = own * (SUN * scene["sunlight"][i] * sun + fill * crevice) + polish + rim * scene["sky"][0][i]
        out.append(jnp.where(solid, _mix(colour, scene["sky"][0][i], haze), sky[i]))
    return out
