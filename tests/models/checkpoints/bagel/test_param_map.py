"""The table of BAGEL's names, against recorded lists of keys and shapes where they are at hand."""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from models.checkpoints.bagel.toy import CONFIG

from macro.models import variants
from macro.models.checkpoints.bagel import convert
from macro.models.checkpoints.bagel.param_map import TRANSFORMS, flax_param, torch_param

KEYS = Path(__file__).resolve().parents[4] / "shared" / "parity" / "bagel"
RELEASED = variants.config_from_name("7B/1024", binding=False)


def test_the_released_checkpoint_has_1221_tensors_and_two_tables_besides_the_244_of_its_autoencoder():
    listed = Counter(mapping.path.split("/")[0] for mapping in convert.tensor_mappings(RELEASED))
    assert listed == {"composer": 1221, "vae": 244}
    stored = {
        mapping.key: mapping.shape
        for mapping in convert.tensor_mappings(RELEASED)
        if not mapping.path.startswith("vae/")
    }
    stored |= convert.fixed_tables(RELEASED)
    assert sum(int(np.prod(shape)) for shape in stored.values()) == 14_607_260_128


@pytest.mark.skipif(not KEYS.is_dir(), reason="no recorded lists of keys")
def test_every_released_tensor_by_name_and_shape():
    ours = {mapping.key: list(mapping.shape) for mapping in convert.tensor_mappings(RELEASED)}
    ours |= {key: list(shape) for key, shape in convert.fixed_tables(RELEASED).items()}
    released = {}
    for name in ("bagel_7b_keys", "ae_flux_keys"):
        released |= json.loads((KEYS / f"{name}.json").read_text())
    assert ours == released


def test_both_directions_agree():
    for path, shape in convert.shapes(CONFIG).items():
        whole = torch_param(path)
        for layer in [None] if whole else range(shape[0]):
            mapped = torch_param(path, layer)
            back = flax_param(mapped.name)
            assert (back.name, back.layer) == (path, layer)


def test_binding_and_strangers_have_no_place():
    assert torch_param("composer/binding") is torch_param("composer/binding", 0) is None
    assert flax_param("language_model.model.layers.0.mlp.gate_proj.bias") is None
    assert flax_param("vae2llm.weightx") is None


@pytest.mark.parametrize("name", TRANSFORMS)
def test_turning_out_undoes_turning_in(name):
    x = jax.random.normal(jax.random.key(0), {"conv": (2, 3, 4, 5), "conv1": (2, 3, 1, 1)}.get(name, (2, 3)))
    x = np.asarray(x)
    np.testing.assert_array_equal(TRANSFORMS[name].to_torch(TRANSFORMS[name].to_flax(x)), x)
