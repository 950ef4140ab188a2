"""KV contexts of the recorded prompt, five guided runs from them step by step, greedy text, and the image's frame."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from parity.golden import Golden

from macro.diffusion.flow import sampling_times
from macro.inputs.packing import pack_target
from macro.inputs.tokenize_example import PositionState, TextSegment, VaeSegment, VitSegment, to_tokens
from macro.sampling.contexts import Prompt, make_prompt, snapshots, stack
from macro.sampling.denoise import decode_images, denoise, guided_velocity
from macro.sampling.options import SamplingOptions
from macro.sampling.plan_decoding import generate
from macro.sampling.prefill import gathered, read_prompt

SHIFT = 3.0  # of the recorded runs
NAMES = {"full": "ctx", "no_text": "cfgtext", "no_image": "cfgimg"}


class AsRecorded:
    """The rule of sizes for images that are recorded as ready tensors."""

    def vae_pixels(self, pixels, size):
        return pixels

    def vit_pixels(self, pixels, count):
        return pixels


def _packing(golden: Golden):
    packing = dataclasses.replace(golden.packing)
    packing.__dict__["images"] = AsRecorded()
    return packing


def _pieces(golden: Golden, letters: str = "AB") -> list[list]:
    """The recorded prompt span by span: an image's two copies, or a text."""
    recorded, tokenizer, found = golden.load("infer"), golden.tokenizer, []
    for number, letter in enumerate("AB"):
        if letter in letters:
            vae, vit = (np.moveaxis(recorded[f"img_{letter}_{copy}"], 0, -1) for copy in ("vae", "vit"))
            sides = [side // golden.model.pixels_per_token for side in vae.shape[:2]]
            patches = [side // golden.model.vision.patch for side in vit.shape[:2]]
            clean = VaeSegment(vae, -1, *sides, number, number, None, None)
            found.append([clean, VitSegment(vit, *patches, number, 0, 2)])
        ids = recorded[f"prompt{number + 1}_ids"].tolist()
        found.append([TextSegment([tokenizer.bos, *ids, tokenizer.eos], False)])
    return found


def _read(golden: Golden, spans: dict[str, list], with_vae: bool = True) -> tuple[Prompt, dict]:
    """These contexts, read."""
    params = {"composer": golden.composer} | ({"vae": golden.vae} if with_vae else {})
    prompt = make_prompt([spans], (), golden.tokenizer, _packing(golden))
    recorded = golden.load("infer")
    noise = [[np.moveaxis(recorded[f"ctx_vae_eps_{n}"], 1, -1) for n in range(len(prompt.latents[0]))]]
    caches, _ = read_prompt(params, prompt, golden.model, noise)
    return prompt, {name: caches[number] for name, number in prompt.contexts.items()}


def read(golden: Golden) -> tuple[Prompt, dict]:
    """The recorded prompt, read in our three contexts."""

    def make():
        return _read(golden, snapshots([piece for span in _pieces(golden) for piece in span]))

    return golden.once("contexts", make)


def recorded_contexts(golden: Golden) -> tuple[dict, dict]:
    """The three caches with the keys and values as recorded, and where each ends."""
    recorded, caches, ends = golden.load("infer"), {}, {}
    for name, theirs in NAMES.items():
        length, rope = int(recorded[f"{theirs}_kv_len"][0]), int(recorded[f"{theirs}_rope"][0])
        layers = range(golden.model.llm.layers)
        cache = {p: jnp.stack([recorded[f"{theirs}_{p}{layer}"] for layer in layers])[:, None] for p in "kv"}
        zeros = jnp.zeros((1, length), jnp.int32)
        order = jnp.arange(length, dtype=jnp.int32)[None]
        caches[name] = cache | {
            "meta": {"segment_ids": zeros, "token_index": order, "block_id": zeros, "mask_mode": zeros}
        }
        ends[name] = PositionState(length, 1, rope)
    return caches, ends


def _check_context(golden: Golden, prompt: Prompt, caches: dict, name: str):
    recorded, theirs, (end,) = golden.load("infer"), NAMES[name], prompt.ends[name]
    kv_len, rope = int(recorded[f"{theirs}_kv_len"][0]), int(recorded[f"{theirs}_rope"][0])
    assert (end.token_index, end.position_id) == (kv_len, rope)
    cache = caches[name]
    meta = {field: np.asarray(values[0]) for field, values in cache["meta"].items()}
    places = np.flatnonzero(meta["segment_ids"] >= 0)
    places = places[np.argsort(meta["token_index"][places])]
    np.testing.assert_array_equal(meta["token_index"][places], np.arange(len(places)))
    for layer in range(golden.model.llm.layers):
        for part in "kv":
            key = f"{theirs}_{part}{layer}"
            golden.close(cache[part][layer, 0][places], recorded[key], key)


def check_full_context(golden: Golden):
    end, trace = PositionState(), []
    for span in _pieces(golden):
        end = to_tokens(span, golden.tokenizer, _packing(golden), end, pixels=False).cursor
        trace.append((end.token_index, end.position_id))
    assert trace == [tuple(row) for row in golden.load("infer")["ctx_trace"].tolist()]
    _check_context(golden, *read(golden), "full")


def check_text_baseline(golden: Golden):
    _check_context(golden, *read(golden), "no_text")


def check_image_baseline(golden: Golden):
    _check_context(golden, *read(golden), "no_image")


def check_image_baseline_from_text_alone(golden: Golden):
    """The same, from spans that need no VAE."""
    texts = [piece for span in _pieces(golden, letters="") for piece in span]
    prompt, caches = _read(golden, {"full": texts, "no_image": texts}, with_vae=False)
    _check_context(golden, prompt, caches, "no_image")


def _size(golden: Golden) -> tuple[int, int]:
    """Height and width in pixels of the runs' image."""
    height, width = golden.load("infer")["run_plain_image"].shape[2:]
    return int(height), int(width)


def _targets(golden: Golden, ends) -> tuple[dict, dict]:
    packed = [pack_target(end, _size(golden), golden.tokenizer, golden.packing) for end in ends]
    rows = ([each[stream] for each in packed] for stream in ("text", "latent"))
    return tuple(stack(each, len(each[0]["token_index"])) for each in rows)


def check_frame(golden: Golden):
    """The tokens of the image to draw, in each context."""
    recorded, (_, ends) = golden.load("infer"), recorded_contexts(golden)
    text, latent = _targets(golden, ends.values())
    np.testing.assert_array_equal(text["ids"][0], recorded["gen_packed_text_ids"])
    np.testing.assert_array_equal(latent["position"][0], recorded["gen_packed_vae_position_ids"])
    n = len(latent["position"][0])
    assert n + 2 == int(recorded["gen_packed_seqlens"][0])
    for row, key in enumerate(("gen_packed", "gent_cfg_packed", "genm_cfg_packed")):
        order = np.concatenate([text["token_index"][row], latent["token_index"][row]])
        rope = np.concatenate([text["position_ids"][row], latent["position_ids"][row]])[np.argsort(order)]
        np.testing.assert_array_equal(rope, recorded[f"{key}_position_ids"])
    np.testing.assert_array_equal(
        latent["token_index"][0] - text["token_index"][0, 0], recorded["gen_packed_vae_token_indexes"]
    )
    np.testing.assert_array_equal(
        text["token_index"][0] - text["token_index"][0, 0], recorded["gen_packed_text_indexes"]
    )


def check_guided_runs_step_by_step(golden: Golden):
    """Each run by hand, one velocity at a time, and then in the compiled loop; from the recorded contexts."""
    recorded, (caches, ends), model = golden.load("infer"), recorded_contexts(golden), golden.model
    noise, size = jnp.asarray(recorded["gen_packed_init_noises"])[None], _size(golden)
    rows, columns = (side // model.pixels_per_token for side in size)
    for run, values in json.loads(str(recorded["runs_json"])).items():
        keys = ("cfg_text_scale", "cfg_img_scale", "cfg_interval", "cfg_renorm_type", "cfg_renorm_min")
        options = SamplingOptions(policy="bagel", **{key: values[key] for key in keys})
        guidance = options.guidance
        names = guidance.contexts
        cache = gathered([caches[name] for name in names], 1, model)
        read_in = golden.composer, [cache], *_targets(golden, [ends[name] for name in names])
        velocity = jax.jit(partial(guided_velocity, config=model, guidance=guidance))
        times = sampling_times(len(recorded[f"run_{run}_t"]) + 1, SHIFT)
        golden.close(times[:-1], recorded[f"run_{run}_t"], f"run {run} t")
        x = noise
        for step, (start, end) in enumerate(zip(times[:-1], times[1:], strict=True)):
            golden.close(x[0], recorded[f"run_{run}_x"][step], f"run {run} x")
            v, _ = velocity(*read_in, x, jnp.float32(start))
            golden.close(v[0], recorded[f"run_{run}_v"][step], f"run {run} v")
            x = x - (start - end) * v
        golden.close(x[0], recorded[f"run_{run}_latent"], f"run {run} latent")
        tokens, _ = denoise(*read_in, noise, times, config=model, guidance=guidance)
        golden.close(tokens[0], recorded[f"run_{run}_latent"], f"run {run} latent, compiled loop")
        if not golden.has_vae:
            continue
        image = decode_images(golden.vae, tokens, rows=rows, columns=columns, config=model)
        golden.close(np.moveaxis(image, -1, 1), recorded[f"run_{run}_image"], f"run {run} image")


def check_greedy_text(golden: Golden):
    recorded, (caches, ends) = golden.load("infer")["greedy_text_ids"], recorded_contexts(golden)
    (ids,) = generate(
        golden.composer,
        caches["full"],
        [ends["full"]],
        golden.tokenizer,
        jax.random.key(0)[None],
        config=golden.model,
        temperature=0.0,
        max_tokens=len(recorded),
    )
    assert [golden.tokenizer.bos, *ids] == recorded.tolist()
