"""KV contexts of the recorded prompt, five guided runs from them step by step, greedy text, and the picture's frame."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from parity.golden import Golden

from macro.diffusion.flow import sampling_times
from macro.diffusion.guidance import bagel
from macro.inputs.pieces import Cursor
from macro.sampling.bagel.contexts import WORD, Context, Contexts
from macro.sampling.bagel.think import think
from macro.sampling.draw import decode_pictures, draw, guided_velocity

SHIFT = 3.0  # of the recorded runs
NAMES = {"full": "ctx", "no_text": "cfgtext", "no_image": "cfgimg"}


def _reader(golden: Golden, names=tuple(NAMES), with_vae: bool = True) -> Contexts:
    params = {"composer": golden.composer} | ({"vae": golden.vae} if with_vae else {})
    return Contexts(params, golden.model, golden.tokenizer, golden.packing, 256, names, parity=True)


def _ended(reader: Contexts, name: str) -> tuple[int, int]:
    end = reader.of[name].end
    return end.order, end.rope


def read(golden: Golden) -> tuple[Contexts, list]:
    """The recorded context, read in our three, and where the full one stood after each piece."""

    def make():
        recorded, reader, trace = golden.load("infer"), _reader(golden), []
        for number, letter in enumerate("AB"):
            picture = tuple(np.moveaxis(recorded[f"img_{letter}_{copy}"], 0, -1) for copy in ("vae", "vit"))
            reader.picture(picture, np.moveaxis(recorded[f"ctx_vae_eps_{number}"], 1, -1))
            trace.append(_ended(reader, "full"))
            reader.text(recorded[f"prompt{number + 1}_ids"].tolist())
            trace.append(_ended(reader, "full"))
        return reader, trace

    return golden.once("contexts", make)


def recorded_contexts(golden: Golden) -> Contexts:
    """The three contexts with the keys and values as recorded."""
    recorded, reader = golden.load("infer"), _reader(golden, with_vae=False)
    for name, theirs in NAMES.items():
        length, rope = int(recorded[f"{theirs}_kv_len"][0]), int(recorded[f"{theirs}_rope"][0])
        layers = range(golden.model.llm.layers)
        cache = {p: jnp.stack([recorded[f"{theirs}_{p}{layer}"] for layer in layers])[:, None] for p in "kv"}
        zeros = jnp.zeros((1, length), jnp.int32)
        order = jnp.arange(length, dtype=jnp.int32)[None]
        cache["meta"] = {"sample": zeros, "order": order, "span": zeros, "mode": zeros}
        places = cache["k"].shape[2]
        nothing = np.full(places, WORD), jnp.zeros((2, places)), jnp.zeros((2, places))
        reader.of[name] = Context(cache, Cursor(length, 1, rope), length, *nothing)
    return reader


def _check_context(golden: Golden, reader: Contexts, name: str):
    recorded, theirs = golden.load("infer"), NAMES[name]
    assert _ended(reader, name) == (int(recorded[f"{theirs}_kv_len"][0]), int(recorded[f"{theirs}_rope"][0]))
    cache = reader.of[name].cache
    meta = {field: np.asarray(values[0]) for field, values in cache["meta"].items()}
    places = np.flatnonzero(meta["sample"] >= 0)
    places = places[np.argsort(meta["order"][places])]
    np.testing.assert_array_equal(meta["order"][places], np.arange(len(places)))
    for layer in range(golden.model.llm.layers):
        for part in "kv":
            key = f"{theirs}_{part}{layer}"
            golden.close(cache[part][layer, 0][places], recorded[key], key)


def check_full_context(golden: Golden):
    reader, trace = read(golden)
    assert trace == [tuple(row) for row in golden.load("infer")["ctx_trace"].tolist()]
    _check_context(golden, reader, "full")


def check_text_baseline(golden: Golden):
    _check_context(golden, read(golden)[0], "no_text")


def check_image_baseline(golden: Golden):
    _check_context(golden, read(golden)[0], "no_image")


def check_image_baseline_from_text_alone(golden: Golden):
    """The same, from pieces that need no VAE."""
    recorded, reader = golden.load("infer"), _reader(golden, ("no_image",), with_vae=False)
    for number in (1, 2):
        reader.text(recorded[f"prompt{number}_ids"].tolist())
    _check_context(golden, reader, "no_image")


def _size(golden: Golden) -> tuple[int, int]:
    """Height and width in pixels of the runs' picture."""
    height, width = golden.load("infer")["run_plain_image"].shape[2:]
    return int(height), int(width)


def check_frame(golden: Golden):
    """The tokens of the picture to draw, in each context."""
    recorded, reader = golden.load("infer"), recorded_contexts(golden)
    text, latent = reader.targets(tuple(NAMES), 1, _size(golden))
    np.testing.assert_array_equal(text["ids"][0], recorded["gen_packed_text_ids"])
    np.testing.assert_array_equal(latent["position"][0], recorded["gen_packed_vae_position_ids"])
    n = len(latent["position"][0])
    assert n + 2 == int(recorded["gen_packed_seqlens"][0])
    for row, key in enumerate(("gen_packed", "gent_cfg_packed", "genm_cfg_packed")):
        order = np.concatenate([text["order"][row], latent["order"][row]])
        rope = np.concatenate([text["rope"][row], latent["rope"][row]])[np.argsort(order)]
        np.testing.assert_array_equal(rope, recorded[f"{key}_position_ids"])
    np.testing.assert_array_equal(latent["order"][0] - text["order"][0, 0], recorded["gen_packed_vae_token_indexes"])
    np.testing.assert_array_equal(text["order"][0] - text["order"][0, 0], recorded["gen_packed_text_indexes"])


def check_guided_runs_step_by_step(golden: Golden):
    """Each run by hand, one velocity at a time, and then in the compiled loop; from the recorded contexts."""
    recorded, reader, model = golden.load("infer"), recorded_contexts(golden), golden.model
    noise, size = jnp.asarray(recorded["gen_packed_init_noises"])[None], _size(golden)
    rows, columns = (side // model.pixels_per_token for side in size)
    for run, options in json.loads(str(recorded["runs_json"])).items():
        guidance = bagel(
            options["cfg_text_scale"],
            options["cfg_img_scale"],
            tuple(options["cfg_interval"]),
            options["cfg_renorm_type"],
            options["cfg_renorm_min"],
            parity=True,
        )
        names = guidance.contexts
        read_in = golden.composer, [reader.side_by_side(names)], *reader.targets(names, 1, size)
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
        tokens, _ = draw(*read_in, noise, times, config=model, guidance=guidance)
        golden.close(tokens[0], recorded[f"run_{run}_latent"], f"run {run} latent, compiled loop")
        if not golden.has_vae:
            continue
        picture = decode_pictures(golden.vae, tokens, rows=rows, columns=columns, config=model)
        golden.close(np.moveaxis(picture, -1, 1), recorded[f"run_{run}_image"], f"run {run} image")


def check_greedy_text(golden: Golden):
    recorded, reader = golden.load("infer")["greedy_text_ids"], recorded_contexts(golden)
    ids, score = think(
        golden.composer,
        reader.of["full"],
        golden.tokenizer,
        jax.random.key(0),
        config=golden.model,
        temperature=0.0,
        limit=len(recorded),
    )
    assert [golden.tokenizer.bos, *ids] == recorded.tolist() and score < 0
