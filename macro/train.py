"""Trains a model.

python -m macro.train --config=configs/tiny.py --workdir=runs/tiny

Writes to the workdir: `config.json`, `metrics.jsonl` (one record per line), `checkpoints/`, `sample_grids/` (what
the model makes of a few samples) and, at the end, `model.safetensors` (averaged weights); with LoRA the
adapters are merged into it, and `lora.safetensors` holds them and what was trained in full besides. Killed at any
moment, the same command goes on where it was.
On several machines the same command runs on each. A TPU pod, Slurm, Open MPI and Kubernetes tell it the rest; elsewhere
add `--coordinator=host:port --process=i --processes=n`, with host:port on the machine of process 0.
What it runs: `macro/training/loop.py`.
"""

import dataclasses
import json
import shlex
import sys

from macro.parallel import multihost
from macro.utils.config import run


def main(config, workdir, coordinator="", process=-1, processes=0, join_seconds=300):
    with multihost.initialize(coordinator, process, processes, join_seconds):
        return _train(config, workdir)


def _train(config, workdir):
    # Imported here: a mistake on the command line is named at once, and data workers start light.
    from pathlib import Path

    from macro.models.checkpoints import weights
    from macro.objectives import OBJECTIVES
    from macro.objectives.parts import model_config
    from macro.sampling.compatibility import training_record
    from macro.training import data, evaluators, loop, lora
    from macro.training.state import averaged, frozen
    from macro.utils import tree
    from macro.utils.config import choose, save_config

    objective = OBJECTIVES[choose(config, "objective", OBJECTIVES)]
    dtype = choose(config, "save_dtype", weights.DTYPES)
    loop.check(objective, config)
    model = model_config(config)
    tokenizer = data.tokenizer_of(config, model)
    packing = data.packing_config(config, model)
    with multihost.primary_first("data"):
        source = data.stored(config)
    if multihost.is_primary():
        save_config(config, workdir)

    batches = data.batches(config, source, tokenizer, packing, loop.mesh_of(config))
    sample_grids = evaluators.sample_grids(config, workdir, model, source, tokenizer, packing)
    state = loop.run(objective, config, batches, workdir, hooks=[sample_grids])
    if state is None:
        return 143  # 128 + SIGTERM, so that `train && evaluate` does not go on with half a model

    trained = averaged(state)
    params = lora.without_adapters(trained, config)
    notes = {
        "command": shlex.join(["python", "-m", "macro.train", *sys.argv[1:]]),
        "config": json.loads(config.to_json_best_effort()),
        "trained_with": training_record(model, tokenizer, packing),
        "steps": int(state.step),
        "examples_seen": int(state.examples),
        "parameters": tree.count(params),
    }
    _save(Path(workdir) / "model.safetensors", params, model, notes, dtype)
    settings = lora.lora_config(config)
    if settings.on:
        objective = lora.adapted(objective, config)
        adapters, _ = tree.split(trained, frozen(objective, config))  # and what was trained in full
        # `base`: the files that the rest of the model began as; what is in none of them followed from the seed.
        notes |= {"lora": dataclasses.asdict(settings), "base": config.init_from.to_dict()}
        notes |= {"parameters": tree.count(adapters)}
        _save(Path(workdir) / "lora.safetensors", adapters, model, notes, "float32")
    return 0


def _save(path, params, model, notes, dtype):
    """Every process gives its shares of the parameters; the first writes the file."""
    from macro.models.checkpoints import weights

    params = multihost.gather_to_primary(params)
    if params is not None:
        weights.save(path, params, model, notes, dtype)
        print(f"wrote {path}")


if __name__ == "__main__":
    run(main, **multihost.HELPS)
