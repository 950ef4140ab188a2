"""MACRO's four tasks on files alone, with stages that look at nothing: what is usable becomes samples, the rest dies.

Broken files lie among the good ones; the run goes on, says why, and what it makes can be written and read back.
"""

import dataclasses
import json

import numpy as np
import pytest

from macro.engines import macrodata
from macro.engines.core import make
from macro.engines.macrodata.mixture import BUCKETS, TASKS
from macro.engines.material import CATEGORIES, FolderMaterial, Options
from macro.engines.material.types import EngineImage
from macro.engines.provider import Provider, RewrittenPage, Suitability
from macro.inputs.sources import JsonFolderSource
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.prompt import marker
from macro.utils import images as image_io

cv2, trimesh = pytest.importorskip("cv2"), pytest.importorskip("trimesh")
pytest.importorskip("mitsuba")

SIZE, SEED = 24, 1


def noise(rng, height, width):
    return rng.integers(255, size=(height, width, 3), dtype=np.uint8)


def set_answers(root):
    """Two things of each kind and a broken one: meshes, panoramas, videos of 13 shots, stories of 12 pages, pools."""
    rng = np.random.default_rng(0)
    for folder in ("meshes", "videos", "stories"):
        (root / folder).mkdir()
    for n in range(2):
        trimesh.creation.box((1, 1 + n, 2)).export(root / f"meshes/{n}.ply")
        image_io.save(root / f"panoramas/{n}.png", np.full((32, 64, 3), 90 + n, np.uint8))
        film = cv2.VideoWriter(str(root / f"videos/{n}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 4, (32, 32))
        for shot in range(13):
            colour = shot * 97 % 251, shot * 53 % 241, (n * 90 + shot * 31) % 239
            for _ in range(8):
                film.write(np.full((32, 32, 3), colour, np.uint8))
        film.release()
        for category in CATEGORIES:
            image_io.save(root / f"pool/{category}/{n}.png", noise(rng, 16, 16))
        pages = []
        for page in range(12):
            image_io.save(root / f"stories/{n}/{page}.png", noise(rng, 16, 16))
            pages.append({"text": f"page {page}", "image": f"{n}/{page}.png"})
        (root / f"stories/{n}.json").write_text(json.dumps({"pages": pages}))
    (root / "meshes/broken.ply").write_bytes(b"ply")
    (root / "videos/broken.mp4").write_bytes(b"")
    (root / "stories/broken.json").write_text("{")
    image_io.save(root / "panoramas/wide.png", noise(rng, 16, 64))
    for category in CATEGORIES:
        (root / f"pool/{category}/broken.png").write_bytes(b"")


def nothing(*asked):
    raise AssertionError("nobody should ask for this")


def stages_on(root):
    """Stages that find everything good."""

    def rate(references, categories, seeds):
        return [Suitability(9.0, ("it",) * len(r), " ".join(map(marker, range(1, len(r) + 1)))) for r in references]

    def compose(prompts, references, sizes, seeds):
        return [EngineImage(np.full((size, size, 3), 200, np.uint8)) for size in sizes]

    def rewrite(texts, images, text, targets, seeds):
        kept = [min(len(p), n) for p, n in zip(images, map(len, images), strict=True)]
        return [RewrittenPage(" ".join(map(marker, range(1, n + 1))), tuple(range(n))) for n in kept]

    answers = {
        "rate": rate, "compose": compose, "rewrite": rewrite,
        "image_similarity": lambda first, second: [1.0] * len(first),
        "summarise": lambda frames, seeds: ["colours change"] * len(frames),
        "judge": lambda requests: [{"following": 8.0} for _ in requests],
    }  # fmt: skip
    sources = FolderMaterial(root, Options(ring=SIZE, samples=1, seconds=60.0))
    return Provider(sources, **answers)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("material")
    set_answers(root)
    engine = dataclasses.replace(macrodata.ENGINE, max_attempts=12)
    return make(engine, stages_on(root), macrodata.Options(size=SIZE), SEED, range(32))


def test_every_task_and_bucket_has_samples(made):
    pairs = {(sample.task, sample.notes["bucket"]) for sample in made.samples}
    assert pairs == {(task, bucket) for task in TASKS for bucket in BUCKETS}
    for sample in made.samples:
        assert len(sample.images) in BUCKETS[sample.notes["bucket"]]
        assert sample.target.pixels is not None and all(image.pixels is not None for image in sample.images)


def test_what_was_broken_is_dead_with_its_reason(made):
    reasons = {}
    for dead in made.dead:
        assert "\n" not in dead.reason
        reasons.setdefault(dead.task, []).append(dead.reason)
    assert any("broken.ply: not a mesh" in reason for reason in reasons["spatial"])
    assert any("wide.png: 64 x 16" in reason for reason in reasons["spatial"])
    assert any("broken.mp4: not a video" in reason for reason in reasons["temporal"])
    assert any("broken.png: not an image" in reason for reason in reasons["customization"])


def test_what_is_made_can_be_written_and_read_back(made, tmp_path):
    """Images are written as they are, whatever file they were taken from."""
    for sample in made.samples:
        write_macrodata(tmp_path / f"{sample.idx:03}.json", sample)
    read = JsonFolderSource(tmp_path)
    assert len(read) == len(made.samples)
    for sample, again in zip(made.samples, read, strict=True):
        np.testing.assert_array_equal(again.target.pixels, sample.target.pixels)
        for one, other in zip(sample.images, again.images, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}
    for path in tmp_path.glob("*.json"):
        record = json.loads(path.read_text())
        assert all("/" not in name for name in (*record["input_images"], record["output_image"]))
