"""Trains a few steps and draws one image on several meshes of this process's devices, and prints what came out as
JSON; run by `test_sharded.py` with eight forced devices."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from macro.inputs.loader import stack
from macro.inputs.packing import pack_sequence
from macro.inputs.tokenizer import Tokenizer
from macro.objectives import joint
from macro.objectives.parts import model_config
from macro.parallel.mesh import ParallelConfig, make_mesh, shard_batch
from macro.sampling.options import SamplingOptions
from macro.sampling.pipeline import Pipeline
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.training import data, lora, state
from macro.training.step import make_step
from macro.utils import tree
from macro.utils.config import load

ROWS = 8
MESHES = {
    "one": (ParallelConfig(), 1),
    "fsdp": (ParallelConfig(), 8),
    "slices": (ParallelConfig(slices=2), 8),
    "tensor": (ParallelConfig("fsdp+tensor", tensor=2), 8),
    "sequence": (ParallelConfig("fsdp+sequence", sequence=4), 8),
}


def batch_of(packing, tokenizer):
    rng = np.random.default_rng(0)

    def pixels(side):
        return rng.integers(0, 255, (side, side, 3), np.uint8)

    def sentence(i):
        words = Text("a robot stands beside a flower " * (i % 3 + 1), learn=True)
        return Sentence((Text("draw "), Image(pixels(32), subject=1), words, Target(pixels(64))), "compose", i)

    source = [sentence(i) for i in range(2 * ROWS)]
    return stack([pack_sequence(source, tokenizer, packing, 0, [2 * i, 2 * i + 1]) for i in range(ROWS)])


def train(config, batch, parallel, devices):
    mesh = make_mesh(parallel, jax.devices()[:devices])
    objective = lora.adapted(joint, config)
    with jax.set_mesh(mesh):
        now, step, losses = state.create(objective, config, mesh), make_step(objective, config, mesh), []
        for _ in range(2):
            now, metrics = step(now, shard_batch(batch, range(ROWS), ROWS, mesh))
            losses.append(float(metrics["loss"]))
    params = {path: np.asarray(x) for path, x in tree.flatten(now.params).items()}
    kernel = tree.flatten(now.params)["composer/mot/blocks/und/up/kernel"]
    moment = tree.flatten(now.opt_state[1][0].mu)
    held = {path: x.sharding.spec for path, x in moment.items()}
    follows = all(held[path] == tree.flatten(now.params)[path].sharding.spec for path in held)
    return losses, params, list(kernel.addressable_shards[0].data.shape), follows


def main(config_file, program):
    config = load(config_file)
    config.unlock()
    config.packing.update({"text": 128, "vision": 16, "latent": 64, "samples": 2, "noise_draws": 1})
    config.packing.buckets, config.batch_size = ((64, 64, 2),), ROWS
    config.model.remat = "full"
    model, tokenizer = model_config(config), Tokenizer.demo()
    packing = data.packing_config(config, model)
    if program == "draw":
        return draw(config, model, tokenizer, packing)
    batch = batch_of(packing, tokenizer)
    changes = {"accumulated": {"grad_accum_steps": 2}, "adapted": {"lora": {"preset": "music", "rank": 2}}}
    base, first, found = None, None, {}
    for name, (parallel, devices) in MESHES.items():
        losses, params, shard, follows = train(config, batch, parallel, devices)
        base, first = base or params, first or losses
        apart = max(float(np.max(np.abs(params[path] - base[path]))) for path in base)
        found[name] = {"losses": losses, "apart": apart, "shard": shard, "follows": follows}
    for name, change in changes.items():
        other = config.copy_and_resolve_references()
        other.update(change)
        losses, _, shard, follows = train(other, batch, ParallelConfig(), 4)
        found[name] = {"losses": losses, "shard": shard, "follows": follows}
    return found


def draw(config, model, tokenizer, packing):
    """One image without a mesh and on others, after the same plan-less sentence."""
    rng = np.random.default_rng(1)
    shapes = state.shapes(joint, config)
    params = jax.tree.map(lambda x: jnp.asarray(0.05 * rng.normal(size=x.shape), x.dtype), shapes)
    image = rng.integers(0, 255, (32, 32, 3), np.uint8)
    options = SamplingOptions(num_timesteps=2, cfg_overall_scale=1.5, use_planner=True)
    found, base = {}, None
    both = ParallelConfig("fsdp+tensor+sequence", tensor=2, sequence=2)
    for name, parallel in {"one": None, "fsdp": ParallelConfig(), "both": both}.items():
        mesh = parallel and make_mesh(parallel)
        pipeline = Pipeline(params, model, tokenizer, packing, options, mesh)
        drawn = pipeline.compose("a <image 1> dog", [image], seed=3)
        base = drawn if base is None else base
        apart = int(np.max(np.abs(drawn.pixels.astype(int) - base.pixels.astype(int))))
        found[name] = {"apart": apart, "same_plan": drawn.plan == base.plan, "spread": int(np.ptp(drawn.pixels))}
    return found


if __name__ == "__main__":
    print(json.dumps(main(str(Path(sys.argv[1])), sys.argv[2])))
