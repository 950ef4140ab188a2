"""The scenes data set: its TFDS builder, and both of its commands."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from macro.inputs.records import build, open_source
from macro.inputs.tokenizer import Tokenizer
from macro.sentence.spans import Sentence, Target, Text

ROOT = Path(__file__).resolve().parents[2]


def test_builder_writes_what_its_engine_makes(tmp_path):
    path = ROOT / "data" / "scenes" / "scenes_dataset_builder.py"
    spec = importlib.util.spec_from_file_location("scenes_dataset_builder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    asked = []

    def engine(seed, start, count, options):
        asked.append((seed, start, count, options))
        pixels = np.full((8, 8, 3), seed, np.uint8)
        return [Sentence((Text("x"), Target(pixels)), idx=i) for i in range(start, start + count)]

    module.Builder.make = staticmethod(engine)
    folder = build(module.Builder, str(tmp_path), seed=4, num=3, options=module.Options(size=8))
    assert folder == str(tmp_path / "scenes" / "1.0.0")
    assert asked == [(4, 0, 3, module.Options(size=8))]
    assert [s.idx for s in open_source(folder)] == [0, 1, 2] and (
        open_source(folder)[0].target.pixels == 4
    ).all()


@pytest.mark.slow
def test_commands(tmp_path):
    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    build = ("data.scenes", "--num=2", f"--out={tmp_path}", "--seed=1", "--size=32", "--reference_size=16")
    code, _, errors = run(*build)
    assert code == 0 and "2 of 2 sentences" in errors
    sentence = open_source(str(tmp_path))[1]
    assert sentence.target.size == (32, 32) and sentence.truth is not None and sentence.plan.grid is not None
    out = tmp_path / "tokenizer.json"
    code, printed, _ = run("data.scenes.tokenizer", f"--data={tmp_path}", f"--out={out}")
    assert code == 0 and "entries" in printed
    tokenizer = Tokenizer.from_file(out)
    assert len(tokenizer.encode(" robot")) == 1 and len(tokenizer.encode(" umbrellas")) == 1
    code, _, errors = run("data.scenes", "--num=0", f"--out={tmp_path / 'none'}")
    assert code == 2 and errors.count("\n") == 1 and errors.startswith("error: data.num")
