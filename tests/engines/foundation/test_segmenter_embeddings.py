"""SAM2, CLIP and DINOv2 as stages, through the real classes on tiny ones of random weights."""

import pickle

import numpy as np
import pytest
from tiny_vision import noise

from macro.engines.foundation.embeddings import Clip, Dino
from macro.engines.foundation.segmenter import Sam2
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region
from macro.utils.errors import ItemError, UserError

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

IMAGES = [EngineImage(noise(i, *size)) for i, size in enumerate([(128, 128), (48, 90), (64, 64), (40, 40)])]
A, B = Region("a dog", (0.1, 0.2, 0.5, 0.6)), Region("a house", (0.5, 0.5, 1.0, 1.0))
REGIONS = [[A, B], [B], [], [B, A]]


# ---- SAM2 ----


def test_masks_are_the_models_at_the_images_size(tiny):
    """The image has the model's own side, so that nothing is resized on its way in."""
    from transformers import Sam2Model

    image = IMAGES[0]
    values = (image.pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    values = torch.from_numpy(values.transpose(2, 0, 1)[None]).float()
    boxes = torch.tensor([[[12.8, 25.6, 64.0, 76.8], [64.0, 64.0, 128.0, 128.0]]])
    with torch.inference_mode():
        out = Sam2Model.from_pretrained(tiny("sam2")).eval()(
            pixel_values=values, input_boxes=boxes, multimask_output=False
        )
    expected = torch.nn.functional.interpolate(out.pred_masks[0], (128, 128), mode="bilinear") > 0
    [found] = Sam2(tiny("sam2"))([image], [[A, B]])
    for mask, whole in zip(found, expected[:, 0].numpy(), strict=True):
        assert mask.dtype == bool and mask.shape == (128, 128)
        assert (mask != whole).mean() < 1e-3


def test_sam2_in_batches_of_any_size_and_order(tiny):
    together = Sam2(tiny("sam2"), batch=4)(IMAGES, REGIONS)
    assert [[m.shape for m in masks] for masks in together] == [[(128, 128)] * 2, [(48, 90)], [], [(40, 40)] * 2]
    for i, (image, regions) in enumerate(zip(IMAGES, REGIONS, strict=True)):
        for mask, alone in zip(together[i], Sam2(tiny("sam2"), batch=1)([image], [regions])[0], strict=True):
            assert (mask != alone).mean() < 1e-3
    # One box or the other is what is asked for.
    [both], [turned] = Sam2(tiny("sam2"))(IMAGES[:1], [[A, B]]), Sam2(tiny("sam2"))(IMAGES[:1], [[B, A]])
    assert (both[0] != both[1]).mean() > 0.01
    assert (both[0] != turned[1]).mean() < 1e-3


# ---- CLIP ----


def test_a_masked_crop_is_another_than_the_whole_one(tiny):
    image = IMAGES[0]
    mask = np.zeros((128, 128), bool)
    mask[40:70, 20:50] = True
    region = Region("a dog", A.box, mask=mask)
    plain, masked = Clip(tiny("clip"))([image] * 2, [region] * 2, ["a dog"] * 2, [False, True])
    assert abs(plain - masked) > 1e-4
    # Masked, nothing but the mask counts; else nothing but the box.
    outside = image.pixels.copy()
    outside[~mask] = 255 - outside[~mask]
    beyond = image.pixels.copy()
    beyond[:, 70:] = 255 - beyond[:, 70:]
    again = Clip(tiny("clip"))(
        [EngineImage(outside), EngineImage(outside), EngineImage(beyond)],
        [region] * 3,
        ["a dog"] * 3,
        [True, False, False],
    )
    assert again[0] == pytest.approx(masked, abs=1e-6)
    assert abs(again[1] - plain) > 1e-4
    assert again[2] == pytest.approx(plain, abs=1e-6)


def test_clip_answers_item_by_item(tiny):
    images, regions = [*IMAGES, IMAGES[0]], [A, B, Region("nowhere", (0.3, 0.3, 0.3, 0.3)), B, A]
    texts, masked = ["a dog", "a house", "x", "a tree", "a dog"], [False, False, False, True, False]
    found = Clip(tiny("clip"), batch=2)(images, regions, texts, masked)
    assert found[2] == ItemError("the box of 'nowhere' is empty or outside of the image")
    assert found[3] == ItemError("'a house' has no mask")
    assert found[0] == pytest.approx(found[4], abs=1e-6)
    for i in (0, 1):
        alone = Clip(tiny("clip"))(images[i : i + 1], regions[i : i + 1], texts[i : i + 1], [False])
        assert alone == pytest.approx([found[i]], abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-4
    assert Clip(tiny("clip"))([], [], [], []) == []


# ---- DINOv2 ----


def test_dino_knows_a_image_again(tiny):
    found = Dino(tiny("dinov2"), batch=2)(IMAGES[:3], [IMAGES[0], IMAGES[0], IMAGES[2]])
    assert found[0] == pytest.approx(1, abs=1e-5) and found[2] == pytest.approx(1, abs=1e-5)
    assert found[1] < 0.999
    assert Dino(tiny("dinov2"))(IMAGES[:1], IMAGES[1:2]) == pytest.approx([found[1]], abs=1e-5)


def test_answers_that_are_no_numbers_are_faults(tiny, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny("dinov2"))
    model.layernorm.bias.data[0] = float("nan")
    model.save_pretrained(tmp_path)
    assert Dino(str(tmp_path))(IMAGES[:1], IMAGES[:1]) == [ItemError("the model's answer is not a number")]


def test_a_stage_travels_without_its_model(tiny):
    """Workers get stages by pickle, and load for themselves."""
    stage = Dino(tiny("dinov2"))
    stage(IMAGES[:1], IMAGES[:1])
    assert len(pickle.dumps(stage)) < 1000
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_another_models_folder_is_refused(tiny):
    with pytest.raises(UserError, match="SAM2: .* a model of type clip, not sam2"):
        Sam2(tiny("clip"))(IMAGES[:1], REGIONS[:1])
