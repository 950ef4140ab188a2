"""Whole runs from pictures and texts to a picture: what `InterleaveInferencer` does, recorded six times."""

import numpy as np
from parity.golden import TOLERANCE, Golden

from macro.sampling.bagel.options import BagelOptions
from macro.sampling.bagel.pipeline import BagelPipeline
from macro.sampling.bagel.sizes import prepared
from macro.sampling.draw import decode_pictures

OPTIONS = BagelOptions(
    cfg_text_scale=4.0,
    cfg_img_scale=1.5,
    cfg_interval=(0.0, 1.0),
    cfg_renorm_type="global",
    cfg_renorm_min=0.0,
    timestep_shift=3.0,
    num_timesteps=5,
    max_think_token_n=6,
    vae_transform=(64, 32, 16),
    vit_transform=(56, 28, 14),
    parity=True,
)
# Numbers are the recorded pictures.
RUNS = {
    "t2i": (["a red fox"], {"image_shapes": (48, 32)}),
    "edit": ([0, "make it blue"], {}),
    "multi": ([0, 1, "both on a beach"], {}),
    "inter": ([0, "this cat", 1, "and this dog"], {}),
    "img_last": (["draw like this", 0], {}),
    "think": (["a red fox"], {"image_shapes": (48, 32), "think": True}),
}


def check_preparation(golden: Golden):
    recorded = golden.load("e2e")
    for number in (0, 1):
        pixels = prepared(recorded[f"image{number}"], OPTIONS, golden.model)
        resized = np.round((pixels[0] + 1) * 127.5).astype(np.uint8)
        np.testing.assert_array_equal(resized, recorded[f"image{number}_resized"])
        for ours, copy in zip(pixels, ("vae", "vit"), strict=True):
            golden.close(np.moveaxis(ours, -1, 0), recorded[f"image{number}_{copy}_tensor"], f"image {copy} tensor")


def _check_run(golden: Golden, run: str):
    recorded = golden.load("e2e")
    pieces, changes = RUNS[run]
    pieces = [recorded[f"image{piece}"] if isinstance(piece, int) else piece for piece in pieces]
    with_pictures = any(isinstance(piece, np.ndarray) for piece in pieces)
    vae = golden.vae if with_pictures or golden.has_vae else {}
    params = {"composer": golden.composer, "vae": vae}
    pipeline = BagelPipeline(params, golden.model, golden.tokenizer, golden.packing, OPTIONS)
    if not vae:
        # The small copy has no VAE: latents are compared all the same.
        pipeline._decode = lambda latents, size, options: []
    posterior = [np.moveaxis(recorded[key], 1, -1) for key in sorted(recorded) if key.startswith(f"{run}_vae_eps")]
    drawn = pipeline.interleave(pieces, noise=recorded[f"{run}_init_noise"][None], posterior=posterior, **changes)

    ends = [drawn.contexts.of[name].end for name in ("full", "no_text", "no_image")]
    assert [end.order for end in ends] == recorded[f"{run}_kv_lens"].tolist()
    assert [end.rope for end in ends] == recorded[f"{run}_ropes"].tolist()
    if run == "think":
        assert list(map(ord, drawn.thought)) == recorded["think_text_codepoints"].tolist()
        assert golden.tokenizer.encode(drawn.thought) == recorded["think_text_ids"].tolist()
    golden.close(drawn.latents[0], recorded[f"{run}_latent"], f"{run} latent")
    if vae:
        _check_pixels(golden, drawn, recorded[f"{run}_image"])


def _check_pixels(golden: Golden, drawn, recorded: np.ndarray):
    """Equal, but for levels that the tolerance leaves on either side of the cut to whole numbers."""
    (height, width), stride = recorded.shape[:2], golden.model.pixels_per_token
    values = decode_pictures(
        golden.vae, drawn.latents, rows=height // stride, columns=width // stride, config=golden.model
    )[0]
    levels = np.clip(np.asarray(values, np.float64) * 0.5 + 0.5, 0, 1) * 255
    room = TOLERANCE * np.abs(values).max() * 127.5
    certain = np.floor(levels - room) == np.floor(levels + room)
    np.testing.assert_array_equal(drawn.pictures[0][certain], recorded[certain])
    assert np.abs(drawn.pictures[0].astype(int) - recorded).max() <= 1


def check_text_to_image(golden: Golden):
    _check_run(golden, "t2i")


def check_edit(golden: Golden):
    _check_run(golden, "edit")


def check_several_pictures(golden: Golden):
    _check_run(golden, "multi")


def check_interleaved(golden: Golden):
    _check_run(golden, "inter")


def check_picture_last(golden: Golden):
    _check_run(golden, "img_last")


def check_thought(golden: Golden):
    _check_run(golden, "think")
