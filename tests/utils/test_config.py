"""Command lines: what they hand over, and the one line that each mistake gets."""

import dataclasses
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from macro.utils import config as config_lib
from macro.utils.errors import UserError

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict({
        "total_steps": 20 if arg == "smoke" else 300,
        "optim": {"lr": 0.1, "warmup_steps": 3},
        "model": {"variant": "XS/128"},
        "sizes": (1, 2),
        "flag": False,
    })
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a command line in this process: (exit code, what main got, stderr)."""
    (tmp_path / "x.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "unset by the test")

    def run(*arguments, main=None, **helps):
        got = {}

        def default_main(config, workdir, seed: int = 7, images: str = "", plan: str | None = None):
            got.update(config=config, workdir=workdir, seed=seed, images=images, plan=plan)

        helps = helps or {"seed": "which", "images": "references", "plan": "a plan"}
        with pytest.raises(SystemExit) as left:
            config_lib.run(main or default_main, ["program", *arguments], **helps)
        return left.value.code, got, capsys.readouterr().err

    return run


def test_overrides_and_flags_arrive_with_their_types(call, tmp_path):
    code, got, _ = call(
        "--config=x.py:smoke",
        "--workdir=w/deep",
        "--config.optim.lr=1",
        "--config.model.variant=S/64",
        "--config.sizes=(4,5,6)",
        "--config.flag",
        "--seed=9",
        "--images=a.png,b.jpg",
    )
    assert code == 0
    assert got["config"].to_dict() == {
        "total_steps": 20,
        "optim": {"lr": 1.0, "warmup_steps": 3},
        "model": {"variant": "S/64"},
        "sizes": (4, 5, 6),
        "flag": True,
    }
    assert (got["seed"], got["images"], got["plan"]) == (9, "a.png,b.jpg", None)
    assert (tmp_path / "w" / "deep").is_dir()


def test_values_may_follow_a_space_and_overrides_may_come_first(call):
    code, got, _ = call("--config.total_steps", "24", "--config", "x.py", "--workdir", "w")
    assert code == 0
    assert got["config"].total_steps == 24


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.total_step=3"], "unknown config key 'total_step'; did you mean 'total_steps'?"),
        (["--config.optim.lrr=3"], "unknown config key 'optim.lrr'; did you mean 'optim.lr'?"),
        (
            ["--config.warmup_steps=3"],
            "unknown config key 'warmup_steps'; did you mean 'optim.warmup_steps'?",
        ),
        (["--config.zzz=3"], "unknown config key 'zzz'; there are flag, model, optim, sizes, total_steps"),
        (
            ["--config.total_steps=many"],
            "--config.total_steps=many: invalid literal for int() with base 10: 'many'",
        ),
        (["--seeed=3"], "Unknown command line flag 'seeed'. Did you mean: seed ?"),
        (["--seed=x"], "--seed=x: invalid literal for int() with base 10: 'x'"),
        (["stray"], "'stray' is not a flag; write --name=value"),
    ],
)
def test_mistakes_get_one_line(call, tmp_path, arguments, line):
    code, got, error = call("--config=x.py", "--workdir=w", *arguments)
    assert (code, got) == (2, {})
    assert error == f"error: {line}\n"
    assert not (tmp_path / "w").exists()


def test_missing_flags_and_files_are_named(call):
    assert call("--workdir=w")[2].startswith("error: --config is missing")
    assert call("--config=x.py")[2].startswith("error: --workdir is missing")
    assert (
        call("--config=y.py", "--workdir=w")[2]
        == "error: --config=y.py: there is no such file; that folder has x.py\n"
    )


def test_an_unwritable_workdir_is_named(call, tmp_path):
    (tmp_path / "taken").write_text("a file")
    code, got, error = call("--config=x.py", "--workdir=taken/w")
    assert (code, got) == (2, {})
    assert error.startswith("error: --workdir=taken/w: cannot be written to (Not a directory)")


def test_user_errors_anywhere_become_one_line(call):
    def main(config, workdir):
        raise UserError("a.png:\n  broken")

    assert call("--config=x.py", "--workdir=w", main=main) == (2, {}, "error: a.png: broken\n")


def test_other_errors_keep_their_traceback(call):
    def main():
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        config_lib.run(main, ["program"])


def test_the_exit_code_is_what_main_returns(call):
    def main():
        return 143

    assert call(main=main)[0] == 143


def test_help_names_every_flag(call, capsys, monkeypatch):
    def main(config, workdir, num: int = 200):
        raise AssertionError("not called")

    with pytest.raises(SystemExit) as left:
        config_lib.run(main, ["program", "--help"], num="how many")
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert "--config:" in out and "--workdir:" in out and "--num: how many (default: 200)" in out


@dataclasses.dataclass
class Part:
    rate: float
    name: str = "a"
    sides: tuple = ()


def test_a_section_becomes_its_dataclass():
    made = config_lib.from_config(Part, ConfigDict({"rate": 1, "sides": [1, 2]}), "part")
    assert made == Part(rate=1.0, sides=(1, 2))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rate": 1.0, "nam": "b"}, "config.part: unknown key 'nam'; did you mean 'name'?"),
        ({"rate": "fast"}, "config.part.rate='fast': must be of type float"),
        ({}, "config.part: the key 'rate' is missing"),
    ],
)
def test_mistakes_in_a_section_are_named(values, line):
    with pytest.raises(UserError) as caught:
        config_lib.from_config(Part, values, "part")
    assert str(caught.value) == line


def test_reading_a_command_line_imports_nothing_heavy():
    """A mistake is named within a blink: no JAX before `main` runs."""
    code = (
        "import sys, macro.utils.config; print(sorted({'jax', 'flax', 'orbax', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# ---- what has no name, and what is dotted ----


@dataclasses.dataclass(frozen=True)
class Noise:
    boxes: float = 0.0
    kinds: tuple[int | float, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Options:
    size: int = 128
    name: str = "x"
    either: int | float = 1
    maybe: str | None = None
    fast: bool = False
    noise: Noise = dataclasses.field(default_factory=Noise)


def place_main(dataset, out, options, count: int | None = None):
    """Hands over what it gets."""
    return GOT.append((dataset, out, options, count))


GOT = []
PLACED = {"positional": ("dataset",), "dotted": {"engine": "options"}}
HELPS = {"dataset": "which set", "out": "where", "options": "--engine.key=value", "count": "how many"}


@pytest.mark.parametrize("order", [0, 1, 2])
def test_what_has_no_name_may_stand_anywhere(call, order):
    GOT.clear()
    arguments = ["--out=o", "--engine.noise.boxes=.5", "--count", "3"]
    places = (0, 1, 4)
    arguments.insert(places[order], "music")
    code, *_ = call(*arguments, main=place_main, **PLACED, **HELPS)
    assert code == 0 and GOT == [("music", "o", {"noise.boxes": ".5"}, 3)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out=o"], "dataset is missing: which set"),
        (["a", "b", "--out=o"], "'b' is not a flag"),
        (["a"], "--out is missing"),
        (["a", "--out=o", "--engine.size"], "--engine.size: has no value"),
        (["a", "--out=o", "--engin.size=3"], "engin"),
        (["a", "--out=o", "--count=few"], "count"),
    ],
)
def test_mistakes_in_places(call, arguments, said):
    code, _, error = call(*arguments, main=place_main, **PLACED, **HELPS)
    assert code == 2 and said in error and error.count("\n") == 1


def test_help_names_them_all(capsys):
    with pytest.raises(SystemExit):
        config_lib.run(place_main, ["program", "--help"], **PLACED, **HELPS)
    out = capsys.readouterr().out
    assert "  dataset: which set" in out and "--engine.key=value" in out and "--count: how many" in out


def test_options_are_overridden_with_their_types():
    given = {"size": "64", "name": "12", "either": "0.5", "maybe": "7", "fast": "true", "noise.kinds": "(3, 4.5)"}
    made = config_lib.parse_overrides(Options, given, "--engine")
    assert made == Options(64, "12", 0.5, "7", True, Noise(kinds=(3, 4.5)))
    assert config_lib.parse_overrides(Options, {"noise.boxes": "1", "maybe": "None"}, "--engine") == Options(
        noise=Noise(boxes=1.0)
    )
    assert config_lib.parse_overrides(Options, {}, "--engine") == Options()
    assert config_lib.option_names(Options)[-3:] == ["noise", "noise.boxes", "noise.kinds"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sise", "1", "--engine.sise: there is no such option; did you mean 'size'?"),
        ("noise.boxs", "1", "did you mean 'noise.boxes'?"),
        ("boxes", "1", "did you mean 'noise.boxes'?"),
        ("size", "big", "--engine.size='big': must be of type int"),
        ("size", "1.5", "--engine.size=1.5: must be of type int"),
        ("either", "x", "--engine.either='x': must be of type int"),
        ("noise", "1", "--engine.noise: is made of noise.boxes, noise.kinds"),
        ("noise.kinds", "(1, 'a')", "--engine.noise.kinds='a': must be of type int"),
        ("fast", "1", "--engine.fast=1: must be of type bool"),
    ],
)
def test_mistakes_in_options(key, value, said):
    with pytest.raises(UserError) as raised:
        config_lib.parse_overrides(Options, {key: value}, "--engine")
    assert said in str(raised.value)


def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(call, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "macro.utils.renamed_keys.RENAMED_KEYS",
        {"optim.clip": "optim.grad_clip_norm", "draw": "sampling", "keep": "removed: set checkpoint.keep_last"},
    )
    cases = {
        "optim.clip": "it is now 'optim.grad_clip_norm'",
        "draw.steps": "it is now 'sampling.steps'",
        "keep": "it was removed: set checkpoint.keep_last",
    }
    for key, said in cases.items():
        code, _, err = call("--config=x.py", "--workdir=w", f"--config.{key}=1")
        assert (code, err) == (2, f"error: unknown config key {key!r}; {said}\n")

    (tmp_path / "x.py").write_text(CONFIG.replace('"lr": 0.1', '"clip": 0.1'))
    code, _, err = call("--config=x.py", "--workdir=w")
    assert (code, err) == (2, "error: --config=x.py: the key 'optim.clip' is now 'optim.grad_clip_norm'\n")

    @dataclasses.dataclass(frozen=True)
    class Optim:
        lr: float = 0.1

    with pytest.raises(UserError, match="config.optim: unknown key 'clip'; it is now 'optim.grad_clip_norm'"):
        config_lib.from_config(Optim, {"clip": 1.0}, "optim")
