"""What must hold of the composer on packed rows: samples do not meet, padding is nothing, binding starts at nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.models.composer import Composer
from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig
from macro.sentence.attention_mask import CAUSAL, FULL, NOISE

CONFIG = ModelConfig(
    llm=LLMConfig(32, 48, 2, 4, 2, 8, 40),
    vision=VisionConfig(16, 24, 1, 2, patch=4, side=4),
    vae=VAEConfig(),
    latent_side=4,
)


def row(seed: int, samples: int, padding: int = 0) -> tuple[dict, jax.Array, jax.Array]:
    """`samples` sentences of 4 text tokens, an image of 4 patches and a noised target of 4 latents, then padding."""
    rng = np.random.default_rng(seed)
    parts = {name: [] for name in ("text", "vision", "latent")}
    for sample in range(samples):
        start = 0
        for name, mode in (("text", CAUSAL), ("vision", FULL), ("latent", NOISE)):
            n = 4
            parts[name].append(
                {
                    "segment_ids": np.full(n, sample),
                    "token_index": start + np.arange(n),
                    "block_id": np.full(n, start),
                    "mask_mode": np.full(n, mode),
                    "position_ids": start + np.arange(n) * (mode == CAUSAL),
                    "ids": rng.integers(0, 40, n),
                    "position": np.arange(n),
                    "subject": np.full(n, 1 + sample),
                    "patches": rng.normal(size=(n, 48)),
                    "subjects": np.eye(13)[[0, 1 + sample, 1 + sample, 0]],
                    "x": rng.normal(size=(n, 64)),
                    "t": np.full(n, rng.uniform()),
                }
            )
            start += n
    streams = {}
    for name, blocks in parts.items():
        stream = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
        if padding:
            stream = {
                key: np.concatenate([value, np.full((padding, *value.shape[1:]), -1 if key == "segment_ids" else 0)])
                for key, value in stream.items()
            }
        streams[name] = {
            key: jnp.asarray(value, jnp.float32 if value.dtype.kind == "f" else jnp.int32)[None]
            for key, value in stream.items()
        }
    return streams, streams["latent"]["x"], streams["latent"]["t"]


@pytest.fixture(scope="module")
def params():
    params = jax.jit(Composer(CONFIG).init)(jax.random.key(0), *row(0, 1))["params"]
    head = params["diffusion_head"]["latent_out"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape) * 0.1
    return params


@pytest.fixture(scope="module")
def forward():
    return jax.jit(lambda params, *inputs: Composer(CONFIG).apply({"params": params}, *inputs))


def test_a_sample_does_not_depend_on_its_row(params, forward):
    alone, together = forward(params, *row(3, 1)), forward(params, *row(3, 2))
    for name in ("text", "velocity"):
        np.testing.assert_allclose(together[name][:, :4], alone[name], atol=1e-5)


def test_padding_changes_nothing_and_stays_finite(params, forward):
    plain, padded = forward(params, *row(4, 2)), forward(params, *row(4, 2, padding=3))
    for name in ("text", "velocity"):
        np.testing.assert_allclose(padded[name][:, :8], plain[name], atol=1e-5)
        assert np.isfinite(padded[name]).all()


def test_text_before_the_image_does_not_see_it(params, forward):
    streams, x, t = row(5, 1)
    other = streams | {"vision": streams["vision"] | {"patches": streams["vision"]["patches"] + 1}}
    a, b = forward(params, streams, x, t), forward(params, other, x, t)
    np.testing.assert_array_equal(a["text"], b["text"])
    assert np.abs(a["velocity"] - b["velocity"]).max() > 1e-4


def test_binding_starts_at_nothing_and_then_tells_subjects_apart(params, forward):
    streams, x, t = row(6, 1)
    unbound = {
        **streams,
        "vision": streams["vision"] | {"subject": jnp.zeros_like(streams["vision"]["subject"])},
        "latent": streams["latent"] | {"subjects": jnp.zeros_like(streams["latent"]["subjects"])},
    }
    a, b = forward(params, streams, x, t), forward(params, unbound, x, t)
    np.testing.assert_array_equal(a["velocity"], b["velocity"])
    trained = params | {"binding": jax.random.normal(jax.random.key(2), params["binding"].shape)}
    a, b = forward(trained, streams, x, t), forward(trained, unbound, x, t)
    assert np.abs(a["velocity"] - b["velocity"]).max() > 1e-3


def test_experts_own_their_tokens(params, forward):
    """Text alone must not touch the generation expert's weights, nor a text-free loss the language head."""
    streams, x, t = row(7, 1)

    def text_loss(params):
        return jnp.sum(jnp.sin(Composer(CONFIG).apply({"params": params}, streams, x, t)["text"]))

    grads = jax.jit(jax.grad(text_loss))(params)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads["mot"]["blocks"]["gen"]))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads["mot"]["blocks"]["und"]["down"]))
