"""DINO and DINOv2 through their real classes, on tiny ones of random weights."""

import numpy as np
import pytest
import tiny_vision
from tiny_vision import noise

from macro.judges.dino import Dino, _resized_middle
from macro.judges.model_loading import pixel_values
from macro.utils.errors import UserError

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SIZES = ((64, 64), (256, 256), (300, 500), (77, 40))
IMAGES = [noise(seed, *size, grain=20) for seed, size in enumerate(SIZES)]


def seen(image):
    return pixel_values([_resized_middle(image)], torch.empty(0))[0].numpy()


def test_dreambenchs_view_of_a_image():
    """Shorter side to 256, the middle 224 x 224, ImageNet's mean and deviation: the library's own steps."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    for image in IMAGES:
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        # Where the longer side comes to a broken number of pixels, the library rounds it.
        tolerance = 0.02 if image.shape[0] == image.shape[1] else 0.15
        np.testing.assert_allclose(seen(image), expected, atol=tolerance)


def test_similarity_is_the_cosine_of_cls_features(tiny_dinov2):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_dinov2).eval()
    with torch.inference_mode():
        features = model(torch.from_numpy(np.stack([seen(p) for p in IMAGES]))).last_hidden_state[:, 0]
    expected = torch.nn.functional.cosine_similarity(features[:-1], features[1:])
    found = Dino(tiny_dinov2).similarity(IMAGES[:-1], IMAGES[1:])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found < 0.999).all()
    np.testing.assert_allclose(Dino(tiny_dinov2).similarity(IMAGES, IMAGES), 1, atol=1e-5)


def test_a_batch_is_as_many_singles_in_order(tiny_dinov2):
    together = Dino(tiny_dinov2, batch=8).features(IMAGES)
    np.testing.assert_allclose(Dino(tiny_dinov2, batch=1).features(IMAGES), together, atol=1e-5)
    np.testing.assert_allclose(Dino(tiny_dinov2, batch=3).features(IMAGES[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert Dino(tiny_dinov2).features([]).shape == (0, 32)


def test_the_first_dino_is_a_vit(tmp_path):
    found = Dino(tiny_vision.dino(tmp_path)).similarity(IMAGES[:2], [IMAGES[0], IMAGES[2]])
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] < 0.999


def test_another_models_folder_is_refused(tiny_clip):
    with pytest.raises(UserError, match="a model of type clip, not vit or dinov2"):
        Dino(tiny_clip).features(IMAGES[:1])
    with pytest.raises(UserError, match="batch is 0"):
        Dino(batch=0)
