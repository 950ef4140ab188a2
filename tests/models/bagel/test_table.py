"""The table of BAGEL's names, against recorded lists of keys and shapes where they are at hand."""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from models.bagel.toy import CONFIG

from macro.models import variants
from macro.models.bagel import exchange
from macro.models.bagel.table import TURNS, our_place, upstream_place

KEYS = Path(__file__).resolve().parents[4] / "shared" / "parity" / "bagel"
RELEASED = variants.config_from_name("7B/1024", binding=False)


def test_the_released_checkpoint_has_1221_tensors_and_two_tables_besides_the_244_of_its_autoencoder():
    listed = Counter(piece.path.split("/")[0] for piece in exchange.pieces(RELEASED))
    assert listed == {"composer": 1221, "vae": 244}
    stored = {piece.key: piece.shape for piece in exchange.pieces(RELEASED) if not piece.path.startswith("vae/")}
    stored |= exchange.fixed_tables(RELEASED)
    assert sum(int(np.prod(shape)) for shape in stored.values()) == 14_607_260_128


@pytest.mark.skipif(not KEYS.is_dir(), reason="no recorded lists of keys")
def test_every_released_tensor_by_name_and_shape():
    ours = {piece.key: list(piece.shape) for piece in exchange.pieces(RELEASED)}
    ours |= {key: list(shape) for key, shape in exchange.fixed_tables(RELEASED).items()}
    released = {}
    for name in ("bagel_7b_keys", "ae_flux_keys"):
        released |= json.loads((KEYS / f"{name}.json").read_text())
    assert ours == released


def test_both_directions_agree():
    for path, shape in exchange.shapes(CONFIG).items():
        whole = upstream_place(path)
        for layer in [None] if whole else range(shape[0]):
            place = upstream_place(path, layer)
            back = our_place(place.name)
            assert (back.name, back.layer) == (path, layer)


def test_binding_and_strangers_have_no_place():
    assert upstream_place("composer/binding") is upstream_place("composer/binding", 0) is None
    assert our_place("language_model.model.layers.0.mlp.gate_proj.bias") is None
    assert our_place("vae2llm.weightx") is None


@pytest.mark.parametrize("name", TURNS)
def test_turning_out_undoes_turning_in(name):
    x = jax.random.normal(jax.random.key(0), {"conv": (2, 3, 4, 5), "conv1": (2, 3, 1, 1)}.get(name, (2, 3)))
    x = np.asarray(x)
    np.testing.assert_array_equal(TURNS[name].outward(TURNS[name].inward(x)), x)
