"""Drawing with fewer image tokens: time, memory and FLOPs by keep ratio, on the shipped model.

    python -m experiments.bench_sample --references=10 --tokens-per-reference=1024 --keep=1.0,0.3 --repeats=3 --json=F

Every row is the same sentence, plan and seed, all of the model's steps; rows take turns; medians. Images of more
patches than the model was trained on are read with its table of positions stretched: time and memory are those of a
model that was, what is drawn is not looked at. Quality is `experiments/006_selection`'s.

The prediction counts the arithmetic that the mathematics asks for, no more: matrices for every token, attention for
every pair that sees one another, the VAE's decoder as its compiler counts it.

    predicted_speedup       of the whole, with a plan that is given
    predicted_loop_speedup  of the denoising loop alone

Predicted before measuring, 10 references of 1,024 tokens on this model (width 192, 6 layers): a token of the image
costs .8 MFLOP a layer for its matrices and 7.9 for 10,240 keys, so the loop at keep .3 takes 3.2 / 8.7 = 2.7 times
less; the prompt is read in full either way (.24 TFLOP a context, two contexts) and is most of it: 1.1 to 1.2 in all.
At 7B width a token's matrices cost 466 MFLOP a layer and 10,240 keys 147: 1.2 times in the loop, less than that in all.
"""

from __future__ import annotations

import dataclasses
import json as json_lib
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import macro
from macro.models.token_selection import TokenSelection
from macro.models.variants import LLMConfig, ModelConfig
from macro.sampling.contexts import Prompt, continue_prompt, prompt_of
from macro.sampling.denoise import decode_images
from macro.sampling.drop_tokens import choice_of
from macro.sampling.pipeline import Pipeline
from macro.sampling.prefill import names_of
from macro.sentence.attention_mask import CAUSAL
from macro.sentence.plan import Plan
from macro.sentence.prompt import build_sentence
from macro.sentence.spans import Sentence
from macro.utils import config as config_lib
from macro.utils.errors import UserError
from macro.utils.images import load as load_image
from macro.utils.images import resize

FILES = sorted(Path("data/fixtures").glob("*.png"))
THOUGHT = "they stand side by side on the grass under a blue sky."
STAGES = {"prefill_seconds": ("prompt", "read"), "select_seconds": ("select",), "loop_seconds": ("draw",)}


def main(
    references: int = 10,
    tokens_per_reference: int = 1024,
    keep: str = "1.0,0.3",
    method: str = "text",
    repeats: int = 3,
    json: str = "",
    plot: str = "",
) -> None:
    keeps = [_share(each) for each in keep.split(",")]
    pipeline, pixels = stretched(tokens_per_reference)
    sentence = sentence_of(references, pixels, pipeline)
    grid = np.arange(64, dtype=np.int8).reshape(8, 8) % (references + 1)
    plan = Plan(THOUGHT, grid)
    settings = {each: None if each == 1 else TokenSelection(keep=each, method=method) for each in keeps}
    taken: dict[float, list] = {each: [] for each in keeps}
    for turn in range(repeats + 1):  # the first turn compiles
        for each, select in settings.items():
            result = pipeline.compose_sentence(sentence, plan, token_selection=select)
            print(f"turn {turn}, keep {each}: {sum(result.seconds.values()):.2f} s", flush=True)
            if turn:
                taken[each].append(result.seconds)
    rows = [row(pipeline, sentence, plan, each, settings[each], taken[each]) for each in keeps]
    for each in rows:
        each["predicted_speedup"] = rows[0]["flops"] / each["flops"]
        each["predicted_loop_speedup"] = rows[0]["loop_flops"] / each["loop_flops"]
        each["speedup"] = rows[0]["seconds"] / each["seconds"]
        each["loop_speedup"] = rows[0]["loop_seconds"] / each["loop_seconds"]
    show(rows)
    if json:
        about = {"device": jax.devices()[0].device_kind, "references": references, "steps": pipeline.options.steps}
        Path(json).write_text(json_lib.dumps({"rows": rows, **about}, indent=2) + "\n")
    if plot:
        draw_plot(rows, plot)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"--keep={text}: shares in (0, 1], separated by commas")
    return share


def stretched(tokens: int) -> tuple[Pipeline, int]:
    """The shipped model for images of so many patches, a square, and the pixels along their side."""
    side = round(tokens**0.5)
    if side**2 != tokens:
        raise UserError(f"--tokens-per-reference={tokens}: take a square, such as {side**2}")
    shipped = macro.load("demo")
    patch, old = shipped.config.vision.patch, shipped.config.vision.side
    pixels = side * patch
    packing = dataclasses.replace(shipped.packing, reference_max_side=pixels, vision_side=max(side, old))
    if side <= old:
        return Pipeline(shipped.params, shipped.config, shipped.tokenizer, packing, shipped.options), pixels
    vision = dict(shipped.params["composer"]["planner"]["vision"])
    table = vision["position_embedding"].reshape(old, old, -1)
    vision["position_embedding"] = jax.image.resize(table, (side, side, table.shape[2]), "linear").reshape(side**2, -1)
    composer = dict(shipped.params["composer"])
    composer["planner"] = dict(composer["planner"]) | {"vision": vision}
    config = dataclasses.replace(shipped.config, vision=dataclasses.replace(shipped.config.vision, side=side))
    params = dict(shipped.params) | {"composer": composer}
    return Pipeline(params, config, shipped.tokenizer, packing, shipped.options), pixels


def sentence_of(references: int, pixels: int, pipeline: Pipeline) -> Sentence:
    """So many references in one sentence, each of `pixels` x `pixels`."""
    if references < 1:
        raise UserError(f"--references={references}: at least 1")
    images = [resize(load_image(FILES[n % len(FILES)]), (pixels, pixels)) for n in range(references)]
    words = ", ".join(f"the <image {n}> thing" for n in range(1, references + 1)) + " stand side by side."
    return build_sentence(words, images, pipeline.packing.buckets[0][:2])


def row(pipeline: Pipeline, sentence: Sentence, plan: Plan, keep: float, select, taken: list[dict]) -> dict:
    """What one keep ratio took, holds and asks for."""
    options, tokenizer, packing, config = pipeline.options, pipeline.tokenizer, pipeline.packing, pipeline.config
    prompt = prompt_of([sentence], options.guidance.contexts, options.policy, tokenizer, packing)
    ids = plan.tokens(tokenizer)
    after = continue_prompt([sentence], sentence.target.size, [[plan]], [[ids]], prompt, tokenizer, packing)
    choice = choice_of(select, prompt, config)
    contexts, llm = len(prompt.distinct), config.llm
    lengths = [names_of(prompt, prompt.contexts[name]) for name in prompt.distinct]
    places = max(each.shape[1] if choice is None or not each.size else choice.size(each) for each in lengths)
    seconds = {
        name: statistics.median(sum(each.get(stage, 0) for stage in stages) for each in taken)
        for name, stages in STAGES.items()
    }
    counted = flops(pipeline, prompt, after, 0 if choice is None else int(choice.quotas.sum()))
    return {
        "keep": keep,
        **seconds,
        "seconds": statistics.median(sum(each.values()) for each in taken),
        "kv_bytes": contexts * places * llm.layers * llm.kv_heads * llm.head_dim * 2 * 4,
        **counted,
    }


def flops(pipeline: Pipeline, prompt: Prompt, after, kept: int) -> dict:
    """Arithmetic of the whole and of the denoising loop; `kept` images' tokens, 0: all."""
    config, steps = pipeline.config, pipeline.options.steps
    llm = config.llm
    latents = after.latent["position"].shape[1]
    read = loop = 0
    vision = _encoder(config, prompt.vision) if prompt.vision else 0
    for row, name in enumerate(prompt.distinct):
        pairs, n = _pairs(prompt, name)
        plan = int((after.plan["segment_ids"][after.kept.index(row)] >= 0).sum()) if row in after.kept else 0
        prompted = sum(n.values())
        read += _layers(llm, prompted + plan, pairs + plan * prompted + plan * (plan + 1) // 2)
        keys = n["text"] + (kept or n["vision"] if n["vision"] else 0)
        drawn = latents + 2
        loop += steps * _layers(llm, drawn, drawn * (keys + plan + drawn))
    decode = _decoder(pipeline, latents)
    return {"flops": read + vision + loop + decode, "loop_flops": loop}


def _layers(llm: LLMConfig, tokens: int, pairs: int) -> int:
    """Of all layers, for so many tokens and pairs that see one another."""
    heads = llm.heads * llm.head_dim
    matrices = 2 * llm.width * (2 * heads + 2 * llm.kv_heads * llm.head_dim + 3 * llm.mlp)
    return llm.layers * (tokens * matrices + pairs * 4 * heads)


def _encoder(config: ModelConfig, vision: dict) -> int:
    """Of the vision encoder, in which an image's patches see one another."""
    spans = vision["block_id"][0][vision["segment_ids"][0] >= 0]
    counts = np.unique(spans, return_counts=True)[1]
    width = config.vision.width
    matrices = 2 * width * (4 * width + 2 * config.vision.mlp)
    return config.vision.layers * int(counts.sum() * matrices + (counts**2).sum() * 4 * width)


def _pairs(prompt: Prompt, name: str) -> tuple[int, dict[str, int]]:
    """How many pairs of a context's tokens see one another, and how many tokens of each stream it has.

    A text token sees itself and all before it, an image's token all up to the image's end.
    """
    n, fields = {"text": 0, "vision": 0, "latent": 0}, []
    for number in prompt.path(name):
        for stream, values in prompt.chunks[number].streams.items():
            real = values["segment_ids"][0] >= 0
            n[stream] += int(real.sum())
            fields.append(np.stack([values[field][0][real] for field in ("token_index", "block_id", "mask_mode")]))
    if not sum(n.values()):
        return 0, n
    order, span, mode = np.concatenate(fields, axis=1)
    last = np.zeros(span.max() + 1, np.int64)
    np.maximum.at(last, span, order)
    return int(np.where(mode == CAUSAL, order + 1, last[span] + 1).sum()), n


def _decoder(pipeline: Pipeline, latents: int) -> int:
    height, width = (side // pipeline.packing.latent_stride for side in pipeline.packing.buckets[0][:2])
    given = pipeline.params["vae"], jnp.zeros((1, latents, pipeline.config.latent_channels))
    lowered = decode_images.lower(*given, rows=height, columns=width, config=pipeline.config)
    return int(lowered.compile().cost_analysis()["flops"])


def show(rows: list[dict]) -> None:
    """The rows as a table."""
    names = ("keep", *STAGES, "seconds", "kv_bytes", "loop_speedup", "predicted_loop_speedup", "speedup")
    names = (*names, "predicted_speedup")
    print("  ".join(names))
    for each in rows:
        print("  ".join(f"{each[name]:{len(name)}.4g}" for name in names))


def draw_plot(rows: list[dict], file: str) -> None:
    """Measured and predicted speed-ups by keep ratio."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    keeps = [each["keep"] for each in rows]
    for name, label, colour in (("loop_speedup", "denoising loop", "C0"), ("speedup", "all", "C1")):
        axis.plot(keeps, [each[name] for each in rows], "o-", color=colour, label=label)
        predicted = [each[f"predicted_{name}"] for each in rows]
        axis.plot(keeps, predicted, "--", color=colour, label=f"{label}, predicted")
    axis.set(xlabel="share of the images' tokens that is kept", ylabel="times faster")
    axis.set_ylim(bottom=0)
    axis.invert_xaxis()
    axis.legend(frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    config_lib.run(
        main,
        references="how many images",
        tokens_per_reference="vision tokens of each, a square",
        keep="shares of them to keep, the first one to be compared with",
        method="how they are chosen (macro/models/token_selection.py)",
        repeats="how often each is drawn, after once to compile",
        json="file for the rows",
        plot="image of the speed-ups, .png (needs matplotlib)",
    )
