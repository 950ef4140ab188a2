"""The scenes data set: its TFDS builder, and the commands that build it and its vocabulary."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.builders import builder_of
from macro.engines import scenes
from macro.inputs.dataset_builder import build
from macro.inputs.sources import open_source
from macro.inputs.tokenizer import Tokenizer
from macro.sentence.spans import Sentence, Target, Text

ROOT = Path(__file__).resolve().parents[2]


def test_builder_writes_what_its_engine_makes(tmp_path, monkeypatch):
    asked = []

    def samples(seed, indices, options):
        asked.append((seed, list(indices), options))
        return [Sentence((Text("x"), Target(np.full((8, 8, 3), seed, np.uint8))), idx=i) for i in indices]

    monkeypatch.setattr(scenes, "_samples", samples)
    options = scenes.Options(size=8)
    folder = build(builder_of("scenes"), str(tmp_path), seed=4, num=5, options=options, shard=3)
    assert folder == str(tmp_path / "scenes" / scenes.VERSION)
    assert asked == [(4, [0, 1, 2], options), (4, [3, 4], options)]
    source = open_source(folder)
    assert [s.idx for s in source] == [0, 1, 2, 3, 4] and (source[0].target.pixels == 4).all()


@pytest.mark.slow
def test_commands(tmp_path):
    def run(*command):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    sizes = ("--engine.size=32", "--engine.reference_size=16")
    code, _, errors = run("data.build", "scenes", "--num=2", f"--out={tmp_path}", "--seed=1", *sizes)
    assert code == 0 and "2 of 2 places" in errors
    sentence = open_source(str(tmp_path))[1]
    assert sentence.target.size == (32, 32) and sentence.truth is not None and sentence.plan.grid is not None
    out = tmp_path / "tokenizer.json"
    code, printed, _ = run("data.scenes.tokenizer", f"--data={tmp_path}", f"--out={out}")
    assert code == 0 and "entries" in printed
    tokenizer = Tokenizer.from_file(out)
    assert len(tokenizer.encode(" robot")) == 1 and len(tokenizer.encode(" umbrellas")) == 1
    code, _, errors = run("data.build", "scenes", "--num=0", f"--out={tmp_path / 'none'}")
    assert code == 2 and errors.count("\n") == 1 and errors.startswith("error: data.num")
