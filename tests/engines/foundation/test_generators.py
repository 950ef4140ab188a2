"""FLUX.1, Kontext and FLUX.2 through diffusers' own pipelines, on tiny ones of random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_vision import noise

from macro.engines.foundation import generators
from macro.engines.foundation.generators import VIEWS, FluxCompose, FluxDraw, KontextRedraw, is_copy, redraw_prompt
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region, ScenePrompt
from macro.utils.errors import ItemError, UserError

IMAGES = [EngineImage(noise(seed)) for seed in range(4)]
DOG = Region("dog", (0.125, 0.25, 0.625, 0.75))

# Of pixels 0..255: what another order of sums may do, and what no such thing does. Random weights look past most of
# what they are given, so that another input moves some pixels by a few steps only.
ROUNDING, SEEN = 1, 2


def difference(a: EngineImage, b: EngineImage) -> float:
    """Largest difference of two images' pixels, 0..255."""
    return float(np.abs(a.pixels.astype(int) - b.pixels).max())


# ---- without a model ----


def test_a_redraw_is_asked_from_another_view_and_alone():
    prompts = [redraw_prompt("red dog", seed) for seed in range(60)]
    assert prompts == [redraw_prompt("red dog", seed) for seed in range(60)]
    assert {view for view in VIEWS for prompt in prompts if view in prompt} == set(VIEWS)
    assert all("red dog" in prompt and "plain" in prompt for prompt in prompts)
    assert all(len(prompt.split()) < 60 for prompt in prompts)  # FLUX's CLIP reads 77 tokens


def test_a_copy_is_known_from_another_image():
    given = IMAGES[0].pixels
    nearly = given + np.random.default_rng([0]).normal(0, 3, given.shape)
    assert is_copy((given / 255).astype(np.float32), given)
    assert is_copy((np.clip(nearly, 0, 255) / 255).astype(np.float32), given)
    assert not is_copy((IMAGES[1].pixels / 255).astype(np.float32), given)
    assert not is_copy((np.roll(given, 8, 1) / 255).astype(np.float32), given)


class Scanner:
    """A pipeline that gives back what it was given, or no numbers where the seed is 7."""

    vae_scale_factor = 8

    def __call__(self, image, generator, **_):
        images = image.permute(0, 2, 3, 1).numpy().copy()
        for values, chosen in zip(images, generator, strict=True):
            if chosen.initial_seed() == 7:
                values[0, 0] = np.nan
            elif chosen.initial_seed() != 1:
                values[:] = 1 - values
        return type("Output", (), {"images": images})


def test_what_is_no_redraw_is_a_fault(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(generators, "_load", lambda *_: Scanner())
    stage = KontextRedraw("scanner", side=32, batch=4)
    found = stage(IMAGES, [DOG, DOG, replace(DOG, box=(0.5, 0.5, 0.5, 0.5)), DOG], [32] * 4, [1, 2, 3, 7])
    assert found[0] == ItemError("the redraw is the crop again")
    assert found[1].pixels.shape == (32, 32, 3)
    assert found[2] == ItemError("the box of 'dog' is empty or outside of the image")
    assert found[3] == ItemError("the image's pixels are not numbers")


# ---- FLUX.1 ----


@pytest.mark.slow
def test_flux_draws_by_caption_and_seed(tiny):
    draw = FluxDraw(tiny("flux"), side=32, steps=2, batch=2)
    ideas = [ScenePrompt(text, ()) for text in ("a dog", "a red house", "a dog", "a dog", "a dog")]
    found = draw(ideas, [32, 32, 48, 32, 24], [1, 1, 1, 2, 1])
    assert [p.pixels.shape for p in found] == [(side, side, 3) for side in (32, 32, 48, 32, 24)]
    assert all(p.pixels.std() > 5 and p.scene is None for p in found)
    for i in (0, 1, 2, 3, 4):
        [alone] = draw([ideas[i]], [found[i].pixels.shape[0]], [[1, 1, 1, 2, 1][i]])
        assert difference(alone, found[i]) <= ROUNDING
    assert difference(found[0], found[1]) > SEEN  # another caption
    assert difference(found[0], found[3]) > SEEN  # another seed
    # Smaller than the side that the model draws at: the same image, scaled down.
    assert abs(found[4].pixels.mean() - found[0].pixels.mean()) < 2
    assert draw([], [], []) == []


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("stage", [FluxDraw, KontextRedraw, FluxCompose])
@pytest.mark.parametrize("given", ["FluxPipeline", "FluxKontextPipeline", "Flux2Pipeline", "StableDiffusionPipeline"])
def test_a_model_of_another_family_is_said_in_a_line(tmp_path, stage, given):
    """The folder has no more than its name, so that of the right family is refused as well, but later."""
    pytest.importorskip("diffusers")
    family = {FluxDraw: "FluxPipeline", KontextRedraw: "FluxKontextPipeline", FluxCompose: "Flux2"}[stage]
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": given}))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        stage(str(tmp_path))._pipeline(family)
    assert (f"it is a {given}, no {family}" in str(caught.value)) is not given.startswith(family)


def test_a_folder_without_a_pipeline_is_said_in_a_line(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="FluxPipeline: .*model cannot be loaded") as caught:
        FluxDraw(str(tmp_path / "model"))([ScenePrompt("a dog", ())], [32], [0])
    assert "\n" not in str(caught.value)


# ---- Kontext ----


@pytest.mark.slow
def test_kontext_sees_the_box_and_nothing_else(tiny):
    redraw = KontextRedraw(tiny("kontext"), side=32, steps=2, batch=2)
    image = IMAGES[0]
    outside, inside = image.pixels.copy(), image.pixels.copy()
    outside[:, 44:] = 255 - outside[:, 44:]
    inside[20:40, 12:36] = 255 - inside[20:40, 12:36]
    cat = replace(DOG, label="cat")
    images = [image, EngineImage(outside), EngineImage(inside), image, image]
    found = redraw(images, [DOG, DOG, DOG, cat, DOG], [32] * 5, [3, 3, 3, 3, 4])
    assert all(p.pixels.shape == (32, 32, 3) for p in found)
    assert difference(found[0], found[1]) <= ROUNDING
    for other in found[2:]:  # another subject, another name, another seed
        assert difference(found[0], other) > SEEN
    [alone] = redraw([image], [DOG], [32], [3])
    assert difference(alone, found[0]) <= ROUNDING
    [large] = redraw([image], [DOG], [48], [3])
    assert large.pixels.shape == (48, 48, 3)


@pytest.mark.slow
def test_kontext_with_a_mask_sees_only_the_mask(tiny):
    redraw = KontextRedraw(tiny("kontext"), side=32, steps=2)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 12:30] = True
    image, masked = IMAGES[0], replace(DOG, mask=mask)
    behind = image.pixels.copy()
    behind[~mask] = 255 - behind[~mask]
    found = redraw([image, EngineImage(behind), image], [masked, masked, DOG], [32] * 3, [3] * 3)
    assert difference(found[0], found[1]) == 0
    assert difference(found[0], found[2]) > SEEN


# ---- FLUX.2 ----


@pytest.mark.slow
def test_flux2_draws_prompt_and_references_in_their_order(tiny):
    compose = FluxCompose(tiny("flux2"), side=32, steps=2, reference_side=64)
    prompt, pair = "<image 1> beside <image 2>", IMAGES[:2]
    asked = [
        (prompt, pair, 32, 5),
        (prompt, pair[::-1], 32, 5),
        (prompt, [pair[0], IMAGES[2]], 32, 5),
        ("<image 2> on <image 1>", pair, 32, 5),
        (prompt, pair, 32, 6),
        ("a tree", [], 48, 5),
    ]
    found = compose(*map(list, zip(*asked, strict=True)))
    assert [p.pixels.shape[0] for p in found] == [32, 32, 32, 32, 32, 48]
    for other in found[1:5]:  # references exchanged, another one, another prompt, another seed
        assert difference(found[0], other) > SEEN
    [alone] = compose([prompt], [pair], [32], [5])
    assert difference(alone, found[0]) <= ROUNDING


@pytest.mark.slow
def test_flux2_takes_ten_references_of_any_size_and_drops_what_it_cannot(tiny):
    compose = FluxCompose(tiny("flux2"), side=32, steps=1, reference_side=64)
    ten = [EngineImage(noise(i, 20 + 9 * i, 100)) for i in range(10)]
    thin = [EngineImage(noise(0, 2000, 4))]
    prompt = " ".join(f"<image {n}>" for n in range(1, 11))
    found = compose([prompt, "<image 2>", "<image 1>", "<image 1>"], [ten, ten[:1], thin, ten[:1]], [32] * 4, [0] * 4)
    assert found[0].pixels.shape == found[3].pixels.shape == (32, 32, 3)
    assert isinstance(found[1], ItemError) and "only 1 image" in found[1].reason
    assert isinstance(found[2], ItemError) and "ratio" in found[2].reason
