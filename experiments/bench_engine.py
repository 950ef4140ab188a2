"""What making data costs: samples a second on two cores, our renderer beside mitsuba's, Beam beside a loop, the bill.

    python -m experiments.bench_engine --sizes=64,128,256 --count=64 --repeats=5 --places=384 [--json=F]

Samples are whole ones (scene, target, references of half its side, words, thoughts, layout, truth), made by two
processes side by side, as `data.build --workers=2` makes them. Images are the targets alone, 16 at a time, 4 rays a
pixel: ours (colours, ids and depth) and mitsuba's (colours alone, `direct`, its variant for machines without a
compiler), whose scenes are ours as triangles: every part in its place, size and colour, the ground, sky and sun, but no
textures, marks, clouds or blobs. Contestants take turns; medians, and ratios within one run. Seconds of wall clock and
of processor are both given: mitsuba spreads an image over the cores, ours runs tile by tile on one.

Written before measuring. Floor: a ray of a 64-pixel target meets some 4 parts that its tile lists, twice with its
shadow, at 60 FLOPs each, and some 300 of shading: 16,384 rays, 13 MFLOP. On one core XLA does some 4 GFLOP/s of such
arithmetic with branches: 3.3 ms an image at 64 pixels, 13 at 128, 52 at 256; its bytes are nothing beside that (16
KB a tile). A sample has besides its target 6 references of half the side, mostly one subject each, which is another 1.2
targets' worth, amodal masks (.3), and drawing again where a subject is hidden (.4): 2.9 targets, 10 ms at 64. Words and
layouts in Python add some 15 ms, whatever the size. Predicted on two cores: 80 samples a second at 64 pixels, 38 at
128, 12 at 256. Mitsuba: 16 ms of both cores an image at 64 pixels in `DESIGN.md`, nearly all of it per ray: 8 times
ours in processor seconds at 64 pixels, 6 at 256, where tiles of ours that see only sky are no longer rare.
Beam has to move a few hundred kilobytes a shard between transforms that it fuses, and takes about a second to begin:
predicted 5% above the loop for some hundred places.
Measured: `LOG.md`.
"""

import concurrent.futures
import json as json_lib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from macro.utils import config as config_lib
from macro.utils.errors import UserError

RAYS, SEED, CHUNK, PROCESSES, SHARD = 4, 0, 16, 2, 8
ENGINES = ("scenes", "music")

# One frame of CATER (320 x 240, Blender): "about a second on a single CPU", says an author of Kubric in this issue.
# Another figure: "about 2 weeks to render 800k models using 8 V100 GPUs", liuyuan-pal/SyncDreamer#14.
BLENDER = {"seconds": 1.0, "pixels": 320 * 240, "source": "google-research/kubric#80"}

BILLS, CORES = (400_000, 15_000_000), 64  # samples of MacroData and of INSET; cores of a machine


# ---- whole samples ----


def make(engine: str, size: int, start: int, count: int) -> int:
    """Makes samples of a size; how many there were."""
    from macro.engines import core, music, procedural, scenes

    if engine == "scenes":
        options = scenes.Options(size=size, reference_size=size // 2, rays=RAYS)
        return len(scenes.samples(SEED, start, count, options))
    provider = procedural.provider(procedural.Options(size=size, rays=RAYS))
    options = music.Options(size=size, reference_size=size // 2)
    return len(core.make(music.ENGINE, provider, options, SEED, range(start, start + count)).samples)


def _timed(engine: str, size: int, start: int) -> tuple[int, float]:
    before = time.process_time()
    return make(engine, size, start, CHUNK), time.process_time() - before


def samples_rows(engine: str, sizes: Sequence[int], count: int, repeats: int) -> list[dict]:
    """Samples a second of two processes, for each size."""
    rows, starts = [], range(0, count, CHUNK)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for size in sizes:
            taken = []
            for turn in range(repeats + 1):
                before = time.perf_counter()
                shares = list(pool.map(_timed, [engine] * len(starts), [size] * len(starts), starts))
                if turn:  # the first one warms up
                    taken.append((time.perf_counter() - before, sum(cpu for _, cpu in shares)))
            made = sum(number for number, _ in shares)
            seconds, cpu = (statistics.median(times) / made for times in zip(*taken, strict=True))
            rows.append(
                {
                    "step": "sample",
                    "who": engine,
                    "size": size,
                    "count": made,
                    "processes": PROCESSES,
                    "repeats": repeats,
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                    "per_second": 1 / seconds,
                }
            )
    return rows  # fmt: skip


# ---- images, ours and mitsuba's ----


def by_ours(compiled: list, size: int) -> np.ndarray:
    """uint8[b, h, w, 3] and more, of which it is the colours that are handed on."""
    from macro.scenes.render import raycast

    return np.asarray(raycast.render(raycast.stack(compiled), size, size, RAYS)["pixels"])


def mitsuba_scene(mi, compiled: dict, with_ground: bool = True):
    """Our scene as mitsuba's. Ours has z away from the camera, theirs towards it: z changes its sign."""
    corners, faces, colours = triangles(compiled)
    paint = {"type": "diffuse", "reflectance": {"type": "mesh_attribute", "name": "vertex_color"}}
    props = mi.Properties()
    props["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": paint})
    mesh = mi.Mesh("parts", len(corners), len(faces), props, False, False)
    mesh.add_attribute("vertex_color", 3, np.ravel(colours).astype(np.float32))
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ravel(corners * [1, 1, -1]).astype(np.float32)
    parameters["faces"] = np.ravel(faces).astype(np.uint32)
    parameters.update()
    lie = mi.ScalarTransform4f().rotate([1, 0, 0], -90).scale([300, 300, 1])
    ground = {"type": "diffuse", "reflectance": {"type": "rgb", "value": compiled["ground"][0].tolist()}}
    sun = {"type": "rgb", "value": (0.92 * np.pi * compiled["sunlight"]).tolist()}
    sky = {"type": "rgb", "value": (0.5 * compiled["sky"].mean(0)).tolist()}
    below = {"ground": {"type": "rectangle", "to_world": lie, "bsdf": ground}} if with_ground else {}
    return mi.load_dict(below | {
        "type": "scene", "integrator": {"type": "direct"}, "parts": mesh,
        "sun": {"type": "directional", "direction": (-compiled["sun"] * [1, 1, -1]).tolist(), "irradiance": sun},
        "sky": {"type": "constant", "radiance": sky},
    })  # fmt: skip


def mitsuba_camera(mi, compiled: dict, size: int):
    eye, forward, up = (vector * [1, 1, -1] for vector in (compiled["eye"], compiled["basis"][2], compiled["basis"][1]))
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "rfilter": {"type": "box"}}
    view = mi.ScalarTransform4f().look_at(eye.tolist(), (eye + forward).tolist(), up.tolist())
    return mi.load_dict({"type": "perspective", "fov": float(np.rad2deg(compiled["fov"])), "to_world": view,
                         "film": film, "sampler": {"type": "independent", "sample_count": RAYS}})  # fmt: skip


def triangles(compiled: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners [n, 3], faces [f, 3] and colours [n, 3] of all parts of a compiled scene, in its own axes."""
    corners, faces, colours, count = [], [], [], 0
    for k in np.nonzero(compiled["bound"][:, 3] > 0)[0]:
        local, sides = solid(int(compiled["family"][k]), compiled["shape"][k].astype(np.float64))
        frame = compiled["frame"][k].astype(np.float64)
        corners.append(np.linalg.solve(frame[:, :3], (local - frame[:, 3]).T).T)
        colours.append(np.broadcast_to(compiled["colours"][k][0], local.shape))
        faces.append(sides + count)
        count += len(local)
    return np.concatenate(corners), np.concatenate(faces), np.concatenate(colours)


def solid(family: int, shape: np.ndarray, around: int = 24, along: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Corners and faces of a primitive in its own frame (`macro/scenes/render/primitives.py`)."""
    from macro.scenes.render import primitives

    if family == primitives.BOX:
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
        quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        return corners, np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])
    turn = np.linspace(0, np.pi, along)
    if family == primitives.CAPSULE:
        height, radius = -np.cos(turn) + shape[0] * np.sign(-np.cos(turn)), np.sin(turn)
    else:
        q0, q1, q2, low, high = shape
        height = (low + high) / 2 - (high - low) / 2 * np.cos(turn)
        radius = np.sqrt(np.maximum(q0 + q1 * height + q2 * height**2, 0))
        height, radius = (np.concatenate([x[:1] * f, x, x[-1:] * f]) for x, f in ((height, 1), (radius, 0)))  # lids
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    ring = np.stack([np.cos(angle), np.zeros(around), np.sin(angle)], -1)
    corners = (radius[:, None, None] * ring + height[:, None, None] * np.array([0.0, 1, 0])).reshape(-1, 3)
    a = (np.arange(len(height) - 1)[:, None] * around + np.arange(around)).ravel()
    b = (np.arange(len(height) - 1)[:, None] * around + (np.arange(around) + 1) % around).ravel()
    return corners, np.concatenate([np.stack([a, b, b + around], -1), np.stack([a, b + around, a + around], -1)])


def images(sizes: Sequence[int], repeats: int) -> tuple[list[dict], float]:
    """Rows of both renderers, and the median `overlap` of their subjects."""
    try:
        import mitsuba as mi
    except ImportError:
        raise UserError("mitsuba is missing; pip install 'macro-compose[engine]'") from None
    from macro.engines import scenes
    from macro.scenes.render import raycast, scene_compiler

    mi.set_variant("scalar_rgb")
    drawn = scenes.draw_scenes(SEED, range(CHUNK), scenes.Options(size=32, rays=1))
    compiled = [raycast.compile_scene(one.scene) for one in drawn]

    def prepared():
        scene_compiler._compiled.cache_clear()  # no scene comes twice where samples are made
        return [raycast.compile_scene(one.scene) for one in drawn]

    prepare = {
        "ours": prepared,
        "mitsuba": lambda: [mitsuba_scene(mi, one) for one in compiled],
    }
    theirs, rows = prepare["mitsuba"](), []
    for size in sizes:
        cameras = [mitsuba_camera(mi, one, size) for one in compiled]

        def by_mitsuba(cameras=cameras):
            pairs = zip(theirs, cameras, strict=True)
            return [np.array(mi.render(scene, sensor=camera, spp=RAYS)) for scene, camera in pairs]

        draw = {"ours": lambda size=size: by_ours(compiled, size), "mitsuba": by_mitsuba}
        rows += _raced("image", size, draw, repeats)
    rows += _raced("prepared", 0, prepare, repeats)
    return rows, statistics.median(overlap(mi, one) for one in compiled)


def overlap(mi, compiled: dict, size: int = 128) -> float:
    """Whether both render the same: intersection over union of the pixels in which each of them has subjects."""
    from macro.scenes.render import raycast

    ours = np.asarray(raycast.render(raycast.stack([compiled]), size, size, 1)["ids"][0]) > 0
    scene, camera = mitsuba_scene(mi, compiled, with_ground=False), mitsuba_camera(mi, compiled, size)
    theirs = np.array(mi.render(scene, sensor=camera, spp=RAYS))[..., 3] > 0.5
    return float((ours & theirs).sum() / (ours | theirs).sum())


def _raced(step: str, size: int, entries: dict[str, Callable], repeats: int) -> list[dict]:
    """Rows of one step, seconds a scene; the first is the yardstick."""
    taken = {name: [] for name in entries}
    for turn in range(repeats + 1):
        for name, work in entries.items():
            before = time.perf_counter(), time.process_time()
            work()
            if turn:  # the first one warms up
                taken[name].append((time.perf_counter() - before[0], time.process_time() - before[1]))
    medians = {name: np.median(times, axis=0) / CHUNK for name, times in taken.items()}
    wall, cpu = next(iter(medians.values()))
    return [
        {"step": step, "who": name, "size": size, "seconds": float(median[0]), "cpu_seconds": float(median[1]),
         "times_ours": float(median[0] / wall), "times_ours_cpu": float(median[1] / cpu), "repeats": repeats}
        for name, median in medians.items()
    ]  # fmt: skip


def beam_rows(places: int, repeats: int, size: int = 64) -> list[dict]:
    """Seconds a place of MUSIC's data set, made in one process by a plain loop and by Beam's DirectRunner."""
    import tempfile

    from data import beam, runners
    from data.builders import builder_of
    from data.providers import procedural
    from macro.engines import music
    from macro.engines.procedural import Options

    settings = {"num": places, "seed": SEED, "shard": SHARD, "options": music.Options(size, size // 2)}
    taken = {"loop": [], "beam": []}
    for turn in range(repeats + 1):
        for name, runner in (("loop", runners.local), ("beam", beam.run)):
            with tempfile.TemporaryDirectory() as folder:
                provider = procedural(Options(size=size, rays=RAYS))
                recipe = builder_of("music")(data_dir=folder, provider=provider, **settings).recipe
                before = time.perf_counter()
                made = len(list(runner(recipe, recipe.shards.missing(), 1)))
                assert made == len(recipe.shards)
                if turn:  # the first one warms up
                    taken[name].append((time.perf_counter() - before) / places)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return [
        {"step": "runner", "who": name, "size": size, "count": places, "seconds": seconds,
         "times_loop": seconds / medians["loop"], "repeats": repeats}
        for name, seconds in medians.items()
    ]  # fmt: skip


def published(rows: list[dict]) -> list[dict]:
    """Blender's published rate beside ours: processor seconds a million pixels."""
    theirs = BLENDER["seconds"] / BLENDER["pixels"]
    return [
        {"step": "published", "who": "Blender", "size": row["size"], "seconds_per_megapixel": 1e6 * theirs,
         "times_ours_cpu": theirs / (row["cpu_seconds"] / row["size"] ** 2), "source": BLENDER["source"]}
        for row in rows if row["step"] == "image" and row["who"] == "ours"
    ]  # fmt: skip


def bill(rows: list[dict]) -> list[dict]:
    """Hours, and machines of `CORES` cores for a day, from processor seconds: cores that are kept busy."""
    made = [row for row in rows if row["step"] == "sample"]
    return [
        {"step": "bill", "who": row["who"], "size": row["size"], "samples": samples,
         "core_hours": samples * row["cpu_seconds"] / 3600,
         "machine_hours": samples * row["cpu_seconds"] / 3600 / CORES,
         "machines_for_a_day": int(np.ceil(samples * row["cpu_seconds"] / 3600 / CORES / 24))}
        for row in made for samples in BILLS
    ]  # fmt: skip


def shown(row: dict) -> str:
    head = f"{row['step']:9} {row['who']:8} {row['size'] or '':>4}"
    if row["step"] == "bill":
        hours = f"{row['core_hours']:10,.0f} core hours {row['machine_hours']:8.1f} hours of {CORES} cores"
        return f"{head} {row['samples']:11,} samples {hours}, {row['machines_for_a_day']} such machines for a day"
    if row["step"] == "runner":
        return f"{head} {1e3 * row['seconds']:9.2f} ms a place, {row['times_loop']:6.3f} of the loop's"
    if row["step"] == "published":
        return f"{head} {row['seconds_per_megapixel']:8.1f} s a megapixel {row['times_ours_cpu']:8.0f} times ours"
    seconds = f"{1e3 * row['seconds']:9.2f} ms {1e3 * row['cpu_seconds']:9.2f} ms of processor"
    if row["step"] == "sample":
        return f"{head} {seconds} {row['per_second']:8.1f} samples a second"
    return f"{head} {seconds} {row['times_ours']:6.2f} of ours, {row['times_ours_cpu']:6.2f} of its processor's"


def main(
    sizes: str = "64,128,256", count: int = 64, repeats: int = 5, places: int = 384, json: str | None = None
) -> None:
    try:
        sides = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise UserError(f"--sizes={sizes}: write whole numbers with commas between them") from None
    if count < PROCESSES * CHUNK or repeats < 1 or min(sides) < 2:
        raise UserError(f"--count must be at least {PROCESSES * CHUNK}, --repeats 1 and --sizes 2")
    rows, alike = images(sides, repeats)
    print(f"subjects in both renderers' images overlap by {alike:.3f} (IoU, median)")
    rows += published(rows)
    for engine in ENGINES:
        rows += samples_rows(engine, sides, count, repeats)
    rows += bill(rows) + beam_rows(places, repeats)
    print("\n".join(map(shown, rows)))
    if json:
        Path(json).write_text(json_lib.dumps({"rows": rows, "overlap": alike}, indent=1) + "\n")


if __name__ == "__main__":
    config_lib.run(
        main, sizes="sides of images in pixels", count="samples that a repeat makes", json="file to write rows to",
        repeats="how often each is run", places="of a data set that a plain loop and Beam make",
    )  # fmt: skip
