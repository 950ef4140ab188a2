"""The classifier: its crops, its file, and what it sees in renders that it was not trained on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes.drawing import images

from macro.evals.classifier import model, training
from macro.evals.classifier.model import NOTHING, Classifier, cells_box
from macro.nn.subject_classifier import CROP, MARGIN, crop, square
from macro.scenes.assets.catalog import KINDS
from macro.scenes.graph import TEXTURES
from macro.scenes.ground_truth.annotate import layout
from macro.scenes.layout.layout_sampler import sample_scene
from macro.utils.errors import UserError

COUNTS = (1, 2, 3, 4, 5, 3, 4, 5)


@pytest.fixture(scope="module")
def subjects():
    """(image, box around its cells, kind, texture) of the subjects of a few rendered scenes."""
    graphs = [sample_scene(np.random.default_rng((77, n)), count) for n, count in enumerate(COUNTS)]
    drawn = images(graphs, 128, 128, 4)
    found = []
    for graph, pixels, ids in zip(graphs, drawn["pixels"], drawn["ids"], strict=True):
        grid = layout(ids[None] == np.arange(1, len(graph.subjects) + 1)[:, None, None])
        for subject in graph.subjects:
            if (box := cells_box(grid, subject.number)) is not None:
                found.append((pixels, box, subject.kind, subject.texture))
    return found


def predictions(subjects, blur=0.0):
    return model.load().classify([s[0] for s in subjects], [s[1] for s in subjects], blur)


# ---- crops ----


def test_cells_box():
    grid = np.zeros((8, 8), np.int8)
    grid[2:5, 6:8] = 3
    assert cells_box(grid, 3).tolist() == [0.75, 0.25, 1.0, 0.625]
    assert cells_box(grid, 1) is None


def test_square_is_around_the_longer_side():
    x, y, side = square(np.array([0.25, 0.5, 0.5, 1.0]))
    assert (x, y, side) == pytest.approx((0.375, 0.75, 0.5 * MARGIN))


def test_crop_shows_the_square_and_nothing_else():
    image = np.zeros((1, 128, 128, 3), np.uint8)
    image[0, 32:64, 64:96] = 255
    inside = crop(jnp.asarray(image), jnp.array([[0.625, 0.375, 0.2]]), jnp.zeros(1))
    assert inside.shape == (1, CROP, CROP, 3)
    assert np.abs(np.asarray(inside) - 1).max() < 0.02
    half = np.asarray(crop(jnp.asarray(image), jnp.array([[0.5, 0.375, 0.2]]), jnp.zeros(1)))[0]
    assert half[:, : CROP // 2 - 3].max() < -0.98 and half[:, CROP // 2 + 3 :].min() > 0.98


def test_blur_keeps_the_mean_and_outside_is_grey():
    image = jnp.full((1, 64, 64, 3), 255, jnp.uint8)
    blurred = np.asarray(crop(image, jnp.array([[0.5, 0.5, 0.3]]), jnp.full(1, 0.1)))
    assert np.abs(blurred - 1).max() < 0.02
    beyond = np.asarray(crop(image, jnp.array([[0.0, 0.5, 0.5]]), jnp.zeros(1)))[0]
    assert np.abs(beyond[:, : CROP // 2 - 3]).max() < 0.01 and beyond[:, CROP // 2 + 3 :].min() > 0.98


# ---- the shipped classifier ----


def test_shipped_classifier_knows_all_kinds_and_is_small():
    classifier = model.load()
    assert classifier.kinds == (NOTHING, *KINDS) and classifier.textures == tuple(TEXTURES)
    assert model.SHIPPED.stat().st_size < 1.5e6
    assert classifier.notes["kind_1_5"] >= 0.9 and classifier.notes["kind_blurred_0.1"] <= 0.05


def test_it_reads_renders(subjects):
    seen = predictions(subjects)
    assert len(seen) == len(subjects) >= 25
    kinds = np.mean([r.kind == s[2] for r, s in zip(seen, subjects, strict=True)])
    textures = np.mean([r.texture == s[3] for r, s in zip(seen, subjects, strict=True)])
    assert kinds >= 0.85 and textures >= 0.6  # chance: 1/40, and 0.4 for always saying plain


def test_it_reads_through_a_little_blur_but_sees_no_dogs_in_blobs(subjects):
    a_little, much = predictions(subjects, 0.015), predictions(subjects, 0.12)
    assert np.mean([r.kind == s[2] for r, s in zip(a_little, subjects, strict=True)]) >= 0.8
    assert np.mean([r.kind == s[2] for r, s in zip(much, subjects, strict=True)]) <= 0.05


def test_flat_cells_are_nothing(subjects):
    flat = []
    for image, box, kind, texture in subjects:
        x0, y0, x1, y1 = (128 * box).astype(int)
        painted = image.copy()
        painted[y0:y1, x0:x1] = image[y0:y1, x0:x1].mean((0, 1))
        flat.append((painted, box, kind, texture))
    assert np.mean([r.kind == s[2] for r, s in zip(predictions(flat), flat, strict=True)]) <= 0.15


def test_any_number_of_crops(subjects):
    everyone = predictions(subjects)
    assert predictions(subjects[:1]) == everyone[:1]
    assert predictions([]) == []


# ---- files ----


def test_saved_and_loaded(tmp_path, subjects):
    noted = dataclasses.replace(model.load(), notes={"seed": 5})
    model.save(noted, tmp_path / "reader.safetensors")
    again = model.load(tmp_path / "reader.safetensors")
    assert again.notes == {"seed": 5} and isinstance(again, Classifier)
    few = subjects[:4]
    assert again.classify([s[0] for s in few], [s[1] for s in few]) == predictions(few)


def test_what_is_no_classifier(tmp_path):
    with pytest.raises(UserError, match="none.safetensors: no such file"):
        model.load(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678 not a file")
    with pytest.raises(UserError, match="not a classifier"):
        model.load(tmp_path / "broken.safetensors")


@pytest.mark.slow
def test_training_command(tmp_path):
    training.main(str(tmp_path / "reader.safetensors"), scenes=16, steps=3)
    classifier = model.load(tmp_path / "reader.safetensors")
    assert classifier.notes["steps"] == 3 and "kind_1_5" in classifier.notes
    training.main(str(tmp_path / "again.safetensors"), scenes=16, steps=3)
    again = model.load(tmp_path / "again.safetensors")
    assert again.notes == classifier.notes
    same = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-3), classifier.params, again.params)
    assert all(jax.tree.leaves(same))
