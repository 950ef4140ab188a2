"""Panoramas: real spheres pass, as the scenes' own camera renders them; images that are none do not."""

from dataclasses import replace

import numpy as np
import pytest

from macro.engines.material import FolderMaterial, Options
from macro.scenes.layout import layout_sampler
from macro.scenes.render import batches
from macro.utils import images as image_io
from macro.utils.errors import ItemError


@pytest.fixture(scope="module")
def sphere():
    """A scene seen from among its subjects, uint8[64, 128, 3]."""
    scene = layout_sampler.sample_scene(np.random.default_rng(5), 4)
    camera = replace(scene.camera, kind="equirectangular", eye=(0.0, 1.2, 3.0), target=(0.0, 1.2, 6.0))
    return next(batches.render_all([replace(scene, camera=camera)], 64, 128, rays=1))["pixels"]


def panorama(tmp_path, pixels, **options):
    image_io.save(tmp_path / "panoramas/room.png", pixels)
    return FolderMaterial(tmp_path, Options(**options)).panorama(0, 0)


def test_a_sphere_is_a_panorama(tmp_path, sphere):
    found = panorama(tmp_path, sphere)
    assert found.name == "room" and found.image.path == str(tmp_path / "panoramas/room.png")
    np.testing.assert_array_equal(found.image.pixels, sphere)


def test_whichever_way_it_is_turned(tmp_path, sphere):
    for columns in range(0, 128, 8):
        panorama(tmp_path, np.roll(sphere, columns, axis=1))


def test_large_ones_are_scaled_down_and_nearly_right_ones_to_the_right_shape(tmp_path, sphere):
    assert panorama(tmp_path, sphere, panorama=64).image.pixels.shape == (32, 64, 3)
    assert panorama(tmp_path, sphere[:, :-1]).image.pixels.shape == (63, 126, 3)
    assert panorama(tmp_path, sphere[:-1]).image.pixels.shape == (64, 128, 3)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda p: p[:, :100], "100 x 64; an equirectangular panorama is twice as wide as high"),
        (lambda p: p.swapaxes(0, 1), "64 x 128"),
        (lambda p: p[:40], "128 x 40"),
        (lambda p: np.linspace(0, 255, 128).astype(np.uint8)[None, :, None] * np.ones_like(p), "edges do not meet"),
        (lambda p: np.where(np.arange(128)[None, :, None] < 64, p, 255 - p), "edges do not meet"),
    ],
)
def test_other_images_are_none(tmp_path, sphere, spoil, reason):
    with pytest.raises(ItemError, match=rf"room\.png: .*{reason}"):
        panorama(tmp_path, np.ascontiguousarray(spoil(sphere)))


def test_a_broken_one_is_a_fault(tmp_path, sphere):
    image_io.save(tmp_path / "panoramas/room.png", sphere)
    (tmp_path / "panoramas/room.png").write_bytes(b"")
    with pytest.raises(ItemError, match="not an image"):
        FolderMaterial(tmp_path).panorama(0, 0)
