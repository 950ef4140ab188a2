"""What the command line refuses, before anything heavy is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from macro import evaluate
from macro.utils.config import load
from macro.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"bench": "scene"}, "no such benchmark; there is scenes"),
        ({"num": 0}, "--num=0: must be at least 1"),
        ({"seed": -1}, "must be 0 or more"),
        ({"json": "/"}, "--json=/: cannot be written"),
        ({"plans": "mine"}, "--plans=mine: use own or truth"),
    ],
)
def test_refused(flags, words, tmp_path):
    with pytest.raises(UserError, match=words):
        evaluate.main(None, str(tmp_path), **flags)


def test_scenes_are_measured_as_the_config_says_they_look(tmp_path):
    config = load(str(ROOT / "configs" / "bagel_7b.py"))
    with pytest.raises(UserError, match="config.data.name is 'files'; take a config whose data are scenes"):
        evaluate.main(config, str(tmp_path))


def test_images_without_plans_are_refused(tmp_path):
    config = load(str(ROOT / "configs" / "inset_bagel_7b.py") + ":smoke")
    with pytest.raises(UserError, match="config.sampling draws without one"):
        evaluate.main(config, str(tmp_path))


def test_the_command_line_says_so_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    command = [sys.executable, "-m", "macro.evaluate", "--config=configs/demo.py"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'taken'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --workdir=") and done.stderr.count("\n") == 1
