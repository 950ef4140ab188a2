"""The command line: both ways, and what it says to mistakes."""

import pytest
from models.checkpoints.bagel import toy

from macro.convert import main
from macro.utils.config import run

HELPS = {name: name for name in ("from_", "to", "source", "out", "vision", "vae", "max_latent_size", "seed", "base")}


@pytest.fixture
def bagel(tmp_path):
    return toy.write(tmp_path / "bagel", *toy.tensors())


def convert(*flags):
    """The exit code."""
    with pytest.raises(SystemExit) as left:
        run(main, ["convert", *flags], **HELPS)
    return left.value.code


def test_there_and_back(bagel, tmp_path, capsys):
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert convert("--from=bagel", f"--source={bagel}", f"--out={ours}") == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert convert("--to=bagel", f"--source={ours}", f"--out={back}") == 0
    for name in ("ema.safetensors", "ae.safetensors"):
        assert (back / name).stat().st_size > 0
    assert convert("--from=bagel", f"--source={back}", f"--out={tmp_path / 'again'}") == 0
    again = (tmp_path / "again" / "bagel" / "tables.safetensors").read_bytes()
    assert again == (ours / "bagel" / "tables.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--source=SOURCE",), "say one of --from=bagel"),
        (("--from=bagel", "--to=bagel", "--source=SOURCE"), "say one of --from=bagel"),
        (("--from=uno", "--source=SOURCE"), "say one of --from=bagel"),
        (("--from=bagel", "--source=/absent"), "no such folder"),
        (("--from=bagel", "--source=SOURCE", "--max_latent_size=32"), "--max_latent_size is 32"),
        (("--to=bagel", "--source=SOURCE"), "model.safetensors"),
    ],
)
def test_mistakes(bagel, tmp_path, capsys, flags, message):
    flags = [flag.replace("SOURCE", str(bagel)) for flag in flags]
    assert convert(*flags, f"--out={tmp_path / 'out'}") == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and message in line
    assert not list(tmp_path.glob("out/*"))
