"""Our vision encoder and connector against the recorded ones."""

import jax
import jax.numpy as jnp
import numpy as np
from parity.bagel import FOLDER, assert_close, load_tree, needs_goldens, sizes, vision_config

from macro.models.vision import Connector, Vision

pytestmark = needs_goldens


def packed():
    """The recorded training batch's pictures: patches, places, sample and span of each patch."""
    inputs = np.load(FOLDER / "train_inputs.npz")
    lengths = inputs["vit_token_seqlens"]
    span = np.repeat(np.arange(len(lengths)), lengths)[None].astype(np.int32)
    position = inputs["packed_vit_position_ids"][None].astype(np.int32)
    patches = jnp.asarray(inputs["packed_vit_tokens"])[None]
    return patches, jnp.asarray(position), jnp.zeros_like(span), jnp.asarray(span)


def test_weights_fit_the_modules():
    tree = load_tree()["composer"]["planner"]
    ours = jax.eval_shape(Vision(vision_config()).init, jax.random.key(0), *packed())["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, tree["vision"])


def test_every_layer_and_connector():
    golden, tree = np.load(FOLDER / "train_outputs.npz"), load_tree()["composer"]["planner"]
    with jax.default_matmul_precision("highest"):
        out, captured = Vision(vision_config()).apply(
            {"params": tree["vision"]}, *packed(), capture_intermediates=True, mutable=["intermediates"]
        )
        connector = Connector(sizes()["llm"]["hidden_size"])
        connected = connector.apply({"params": tree["connector"]}, jnp.asarray(golden["vit_out"])[None])
    assert_close(out[0], golden["vit_out"], "vit_out")
    assert_close(connected[0], golden["connector_out"], "connector_out")
    captured = captured["intermediates"]
    for layer, out in enumerate(captured["layers"]["__call__"][0][0]):
        assert_close(out[0], golden[f"vit_layer{layer}"], f"vit_layer{layer}")
