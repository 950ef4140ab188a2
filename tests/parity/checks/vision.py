"""The vision encoder, layer by layer, and the connector, on the images of the recorded training batch."""

import jax
import jax.numpy as jnp
import numpy as np
from parity.golden import Golden

from macro.models.vision import Connector, Vision


def _packed(golden: Golden) -> tuple:
    """Patches, places, sample and span of each patch."""
    inputs = golden.load("train_inputs")
    lengths = inputs["vit_token_seqlens"]
    span = np.repeat(np.arange(len(lengths)), lengths)[None].astype(np.int32)
    position = inputs["packed_vit_position_ids"][None].astype(np.int32)
    return jax.tree.map(jnp.asarray, (inputs["packed_vit_tokens"][None], position, np.zeros_like(span), span))


def check_weights_fit(golden: Golden):
    model = golden.model
    ours = jax.eval_shape(Vision(model.vision).init, jax.random.key(0), *_packed(golden))["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, golden.composer["planner"]["vision"])


def check_every_layer(golden: Golden):
    recorded, params = golden.load("train_outputs"), golden.composer["planner"]["vision"]
    patches, position, sample, span = _packed(golden)
    out, state = Vision(golden.model.vision).apply(
        {"params": params}, patches, position, sample, span, capture_intermediates=True, mutable=["intermediates"]
    )
    state = state["intermediates"]
    embedded = state["patch_embedding"]["__call__"][0] + params["position_embedding"][position]
    golden.close(embedded[0], recorded["vit_embed"], "vit_embed")
    layers = state["layers"]["__call__"][0][0]
    assert len(layers) == golden.model.vision.layers
    for layer, hidden in enumerate(layers):
        golden.close(hidden[0], recorded[f"vit_layer{layer}"], f"vit_layer{layer}")
    golden.close(out[0], recorded["vit_out"], "vit_out")


def check_connector(golden: Golden):
    recorded = golden.load("train_outputs")
    connector = Connector(golden.model.llm.width)
    params = {"params": golden.composer["planner"]["connector"]}
    ours = connector.apply(params, jnp.asarray(recorded["vit_out"])[None])
    golden.close(ours[0], recorded["connector_out"], "connector_out")
