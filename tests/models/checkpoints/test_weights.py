"""Weights files: round trips, both stored types, and files that are something else."""

import numpy as np
import pytest

from macro.models import variants
from macro.models.checkpoints import weights
from macro.utils.errors import UserError

CONFIG = variants.config_from_name("XXS/64")
PARAMS = {"composer": {"a": {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}}}


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0.0), ("bfloat16", 2**-8)])
def test_round_trip(tmp_path, dtype, error):
    path = tmp_path / "deep" / "model.safetensors"
    weights.save(path, PARAMS, CONFIG, {"steps": 3}, dtype)
    params, config, notes = weights.load(path)
    assert (config, notes) == (CONFIG, {"steps": 3})
    ours = params["composer"]["a"]["kernel"]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, PARAMS["composer"]["a"]["kernel"], atol=error, rtol=0)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        weights.load(tmp_path / "none.safetensors")


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, PARAMS, CONFIG, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cut short"):
        weights.load(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="a pickle"):
        weights.load(path)


def test_safetensors_of_somebody_else(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no macro configuration"):
        weights.load(tmp_path / "other.safetensors")
