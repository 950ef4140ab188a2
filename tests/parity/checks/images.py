"""Whole runs from images and texts to an image: what `InterleaveInferencer` does, recorded six times."""

import dataclasses
from unittest import mock

import jax
import numpy as np
from parity.golden import TOLERANCE, Golden

from macro.inputs.image_spec import ImageSpec, ResizeRule
from macro.sampling.denoise import decode_images
from macro.sampling.options import SamplingOptions
from macro.sampling.pipeline import Pipeline, _Drawing
from macro.sampling.placement import ready_shapes
from macro.sentence.spans import Image, Sentence, Text

OPTIONS = SamplingOptions(
    policy="bagel",
    cfg_text_scale=4.0,
    cfg_img_scale=1.5,
    cfg_interval=(0.0, 1.0),
    cfg_renorm_type="global",
    cfg_renorm_min=0.0,
    timestep_shift=3.0,
    num_timesteps=5,
    max_think_token_n=6,
)
# Numbers are the recorded images.
RUNS = {
    "t2i": (["a red fox"], {"image_shapes": (48, 32)}),
    "edit": ([0, "make it blue"], {}),
    "multi": ([0, 1, "both on a beach"], {}),
    "inter": ([0, "this cat", 1, "and this dog"], {}),
    "img_last": (["draw like this", 0], {}),
    "think": (["a red fox"], {"image_shapes": (48, 32), "think": True}),
}


def _packing(golden: Golden):
    """Both copies of every image, by the recorded runs' rules (longest, shortest side, stride)."""
    packing = dataclasses.replace(golden.packing, reference_vae=True)
    limits = packing.images.vae_limit, packing.images.vit_limit
    packing.__dict__["images"] = ImageSpec(ResizeRule(64, 32, 16), ResizeRule(56, 28, 14), *limits)
    return packing


def check_preparation(golden: Golden):
    recorded, images = golden.load("e2e"), _packing(golden).images
    for number in (0, 1):
        given = recorded[f"image{number}"]
        resized = images.vae_pixels(given, images.vae_size(given.shape[:2]))
        np.testing.assert_array_equal(resized, recorded[f"image{number}_resized"])
        for ours, copy in ((resized, "vae"), (images.vit_pixels(given), "vit")):
            ours = np.moveaxis(ours.astype(np.float32) / 127.5 - 1, -1, 0)
            golden.close(ours, recorded[f"image{number}_{copy}_tensor"], f"image {copy} tensor")


def _check_run(golden: Golden, run: str):
    recorded = golden.load("e2e")
    spans, changes = RUNS[run]
    spans = [Image(recorded[f"image{span}"]) if isinstance(span, int) else Text(span) for span in spans]
    with_images = any(isinstance(span, Image) for span in spans)
    whole = with_images or golden.has_vae
    # The small copy has no VAE: one of zeros stands in for it, and latents are compared all the same.
    vae = golden.vae if whole else jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), ready_shapes(golden.model)["vae"])
    params = {"composer": golden.composer, "vae": vae}
    pipeline = Pipeline(params, golden.model, golden.tokenizer, _packing(golden), OPTIONS)
    posterior = [np.moveaxis(recorded[key], 1, -1) for key in sorted(recorded) if key.startswith(f"{run}_vae_eps")]
    replay = {"noise": recorded[f"{run}_init_noise"][None], "posterior": [posterior]}
    decode = _Drawing._decode if whole else lambda drawing, latents: [np.zeros((1, 1, 3), np.uint8)]
    with mock.patch.object(_Drawing, "_decode", decode):
        (drawn,) = pipeline.compose_batch([Sentence(tuple(spans))], **replay, **changes)

    lengths, ropes = recorded[f"{run}_kv_lens"].tolist(), recorded[f"{run}_ropes"].tolist()
    assert list(drawn.ends.values()) == list(zip(lengths, ropes, strict=True))
    if run == "think":
        assert list(map(ord, drawn.plan.cot)) == recorded["think_text_codepoints"].tolist()
        assert golden.tokenizer.encode(drawn.plan.cot) == recorded["think_text_ids"].tolist()
    latents = drawn.candidates[0].latents
    golden.close(latents, recorded[f"{run}_latent"], f"{run} latent")
    if whole:
        _check_pixels(golden, drawn, recorded[f"{run}_image"])


def _check_pixels(golden: Golden, drawn, recorded: np.ndarray):
    """Equal, but for levels that the tolerance leaves on either side of the cut to whole numbers."""
    (height, width), stride = recorded.shape[:2], golden.model.pixels_per_token
    latents, cells = drawn.candidates[0].latents[None], {"rows": height // stride, "columns": width // stride}
    values = decode_images(golden.vae, latents, **cells, config=golden.model)[0]
    levels = np.clip(np.asarray(values, np.float64) * 0.5 + 0.5, 0, 1) * 255
    room = TOLERANCE * np.abs(values).max() * 127.5
    certain = np.floor(levels - room) == np.floor(levels + room)
    np.testing.assert_array_equal(drawn.pixels[certain], recorded[certain])
    assert np.abs(drawn.pixels.astype(int) - recorded).max() <= 1


def check_text_to_image(golden: Golden):
    _check_run(golden, "t2i")


def check_edit(golden: Golden):
    _check_run(golden, "edit")


def check_several_images(golden: Golden):
    _check_run(golden, "multi")


def check_interleaved(golden: Golden):
    _check_run(golden, "inter")


def check_image_last(golden: Golden):
    _check_run(golden, "img_last")


def check_thought(golden: Golden):
    _check_run(golden, "think")
