"""Builds a data set with one of the data engines.

python -m data.build music --num=1000 --out=runs/data --provider=procedural --seed=0 --workers=2
python -m data.build scenes --num=1000 --out=runs/data --engine.rays=1         (any field of the engine's Options)
python -m data.build inset --provider=foundation --provider.vlm=NAME --material=FOLDER --out=runs/data
python -m data.build macrodata --from_json=MacroData --out=runs/data           (the published layout, read back)
python -m data.build music --runner=FlinkRunner --runner_options='--flink_master=...' --out=/mnt/shared ...

The data set lands in <out>/<name>/<version>, complete or not at all, with <out>/<name>-summary.json and the dead
letters, <out>/<name>-dead.jsonl, beside it. A build that was stopped goes on when the same command is started again,
and repeats no finished shard. The same seed gives the same bytes, whatever the runner and the number of workers.
"""

import functools
import json
import re
import sys
from collections.abc import Mapping, Sequence

from etils import epath

from macro.utils.config import option_names, parse_overrides, run
from macro.utils.errors import UserError

# Data set -> "module:NAME" of its engine, imported on demand.
DATASETS = {name: f"macro.engines.{name}:ENGINE" for name in ("edit", "inset", "macrodata", "music", "scenes")}
RUNNERS = ("local", "DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")


def main(
    dataset: str,
    out: str,
    engine_options: Mapping[str, str],
    provider_options: Mapping[str, str],
    material_options: Mapping[str, str],
    num: int | None = None,
    seed: int = 0,
    provider: str = "procedural",
    material: str = "",
    size: int | None = None,
    workers: int = 1,
    runner: str = "local",
    runner_options: str = "",
    shard: int = 64,
    split: str = "train",
    from_json: str = "",
) -> int:
    # Imported here, because what they import would slow down `--help`.
    from data.builders import builder_of
    from data.summary import printed
    from macro.inputs.dataset_builder import build

    builder = reader_of(dataset) if from_json else builder_of(dataset)
    for name, value in (("workers", workers), ("shard", shard)):
        if value < 1:
            raise UserError(f"--{name}={value}: must be at least 1")
    if not re.fullmatch(r"\w+", split):
        raise UserError(f"--split={split!r}: is no name; take train or eval")
    more = {"workers": workers, "runner": runner_of(runner, runner_options), "shard": shard, "split": split}
    engine = engine_of(builder)
    if size is not None:
        engine_options = sizes(engine.options, size) | engine_options
    options = parse_overrides(engine.options, engine_options, "--engine")
    if builder.needs_provider:
        from data.providers import PROVIDERS, load, parse_provider

        if size is not None and provider in PROVIDERS:
            provider_options = sizes(load(PROVIDERS[provider][0]), size) | provider_options
        more["provider"] = parse_provider(provider, provider_options, material, material_options, split)
    elif provider != "procedural" or provider_options or material or material_options:
        raise UserError(f"--provider, --material: {dataset} asks no provider for anything; leave them out")
    if from_json:
        from data.macrodata.from_json import files_of, options_of

        options, there = options_of(options, from_json, split), len(files_of(from_json, split))
        num = there if num is None else min(num, there)
    try:
        folder = build(builder, out, seed, 1000 if num is None else num, options, **more)
    except KeyboardInterrupt:
        print(f"{dataset}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(printed(json.loads((epath.Path(out) / f"{dataset}-summary.json").read_text())))
    print(folder)
    return 0


def sizes(options: type, size: int) -> dict[str, str]:
    """What `--size` says of the fields of that name in a dataclass of options, and in those that it holds."""
    return {path: str(size) for path in option_names(options) if path.split(".")[-1] == "size"}


def reader_of(dataset: str) -> type:
    """The TFDS builder of a data set that is read from its published layout."""
    from data.macrodata.from_json import Builder

    if dataset != Builder.name:
        raise UserError(f"--from_json: reads {Builder.name}'s published layout, not {dataset}'s")
    return Builder


def engine_of(builder: type):
    """The engine of a TFDS builder."""
    from data.shards import load

    return load(builder.engine)


def runner_of(name: str, options: str):
    """The runner that makes the shards: processes of this machine, or Beam."""
    from data.runners import local

    if name not in RUNNERS:
        raise UserError(f"--runner={name}: there are {', '.join(RUNNERS)}")
    if name == "local":
        if options:
            raise UserError("--runner_options: are for Beam's runners; add --runner, such as --runner=DirectRunner")
        return local
    try:
        from data.beam import run as beam
    except ModuleNotFoundError as error:
        raise UserError(f"--runner={name}: {error}; pip install 'macro-compose[engine]'") from None
    return functools.partial(beam, runner=name, options=options)


def command(argv: Sequence[str] | None = None) -> None:
    """The command line; sys.argv if None."""
    run(
        main,
        argv,
        positional=("dataset",),
        dotted={"engine": "engine_options", "provider": "provider_options", "material": "material_options"},
        dataset=f"what to build: {', '.join(DATASETS)}",
        out="folder that the data set is written to",
        engine_options="--engine.key=value sets a field of the engine's Options",
        provider_options="--provider.key=value sets a field of the provider's Options",
        num="how many places (1000, or all files of --from_json); one whose every attempt is dropped stays empty",
        seed="the seed everything follows from",
        material_options="--material.key=value sets how material is read (macro.engines.material.Options)",
        provider="who answers the engine's stages: procedural (rendered, exact) or foundation (real models)",
        material="folder of raw material for the foundation provider (macro/engines/material)",
        size="side of all images but references, pixels: short for every option of that name",
        workers="processes that make shards side by side, on this machine",
        runner=f"who runs them: {', '.join(RUNNERS)}",
        runner_options="handed to Beam, such as '--project=p --region=r --temp_location=gs://b/tmp'",
        shard="places that are made together, and lost when a build is stopped; for millions take more",
        split="train or eval: they share no sample, whatever their seeds, and no listed file of --material",
        from_json="folder in MacroData's published layout to read instead of making anything",
    )


if __name__ == "__main__":
    command()
