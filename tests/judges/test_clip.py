"""CLIP through its real classes, on a tiny one of random weights."""

import numpy as np
import pytest
from tiny_vision import noise

from macro.judges.clip import Clip
from macro.utils.errors import UserError

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SIZES = ((32, 32), (64, 64), (40, 90), (90, 40), (31, 33))
IMAGES = [noise(seed, *size) for seed, size in enumerate(SIZES)]
TEXTS = ["a dog", "two red houses beside a very tall tree", "x", "the sea at night", "a dog"]


def test_similarities_are_those_of_the_library(tiny_clip):
    """Against `CLIPModel.forward` behind its own processor; of a square image every pixel is the same."""
    from transformers import AutoProcessor, CLIPModel

    squares, texts = IMAGES[:2], TEXTS[:2]
    processor = AutoProcessor.from_pretrained(tiny_clip)
    processor.image_processor.size, processor.image_processor.crop_size = (
        {"shortest_edge": 32},
        {"height": 32, "width": 32},
    )
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    inputs = processor(text=texts, images=squares, return_tensors="pt", padding=True)
    with torch.inference_mode():
        outputs = model(**inputs)
    ours = Clip(tiny_clip)
    np.testing.assert_allclose(ours.images(squares), outputs.image_embeds, atol=1e-5)
    np.testing.assert_allclose(ours.texts(texts), outputs.text_embeds, atol=1e-5)
    expected = outputs.logits_per_image.diagonal() / model.logit_scale.exp().item()
    np.testing.assert_allclose(ours.text_similarity(squares, texts), expected, atol=1e-5)


def test_an_image_is_like_itself_and_less_like_others(tiny_clip):
    model = Clip(tiny_clip)
    np.testing.assert_allclose(model.image_similarity(IMAGES, IMAGES), 1, atol=1e-5)
    others = IMAGES[1:] + IMAGES[:1]
    between = model.image_similarity(IMAGES, others)
    assert (between < 0.999).all()
    np.testing.assert_allclose(model.image_similarity(others, IMAGES), between, atol=1e-6)


def test_a_batch_is_as_many_singles_in_order(tiny_clip):
    together = Clip(tiny_clip, batch=8).text_similarity(IMAGES, TEXTS)
    for batch in (1, 2):
        np.testing.assert_allclose(Clip(tiny_clip, batch=batch).text_similarity(IMAGES, TEXTS), together, atol=1e-5)
    alone = [Clip(tiny_clip).text_similarity([p], [t])[0] for p, t in zip(IMAGES, TEXTS, strict=True)]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert len(np.unique(together.round(4))) == len(IMAGES)  # so that an exchange would show


def test_only_the_middle_is_seen(tiny_clip):
    """A shorter side of 32 of 32 x 96: the outer thirds lie outside of what the model looks at."""
    wide = noise(7, 32, 96)
    other = wide.copy()
    other[:, :28], other[:, 68:] = 255 - other[:, :28], 255 - other[:, 68:]
    moved = wide.copy()
    moved[:, 40:56] = 255 - moved[:, 40:56]
    model = Clip(tiny_clip)
    assert model.image_similarity([wide], [other])[0] == pytest.approx(1, abs=1e-5)
    assert model.image_similarity([wide], [moved])[0] < 0.999


def test_a_long_text_is_cut_and_nothing_is_nothing(tiny_clip):
    model = Clip(tiny_clip)
    long = "a very long way to say dog " * 20
    assert model.text_similarity([IMAGES[0]], [long]).shape == (1,)
    np.testing.assert_array_equal(model.texts([long]), model.texts([long + " and more"]))
    assert model.text_similarity([], []).shape == (0,)


def test_a_model_is_loaded_once(tiny_clip):
    assert Clip(tiny_clip, "cpu").load()[0] is Clip(tiny_clip, "cpu", batch=2).load()[0]


def test_half_precision_is_near(tiny_clip):
    exact = Clip(tiny_clip).text_similarity(IMAGES, TEXTS)
    half = Clip(tiny_clip, dtype="bfloat16").text_similarity(IMAGES, TEXTS)
    np.testing.assert_allclose(half, exact, atol=0.02)
    assert not np.array_equal(half, exact)


def test_mistakes_are_said_in_a_line(tiny_clip, tiny_dinov2, tmp_path):
    cases = [
        (dict(name=str(tmp_path / "nothing")), "nothing cannot be loaded"),
        (dict(name=tiny_dinov2), "a model of type dinov2, not clip"),
        (dict(name=tiny_clip, device="gpu3"), "device gpu3"),
        (dict(name=tiny_clip, dtype="int7"), "dtype int7"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            Clip(**options).texts(["a dog"])
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="batch is 0"):
        Clip(batch=0)
