"""The recorded inference contexts: keys and values of a prompt read piece by piece, picture by picture."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.bagel import FOLDER, assert_close, load_tree, needs_goldens
from parity.llm import composer_params, model_config

from macro.models.composer import Composer, join
from macro.models.vae import VAE, normalise, patchify
from macro.sentence.sight import CAUSAL, FULL

pytestmark = needs_goldens
BOS, EOS, START, END = 120, 121, 122, 123


class Reader:
    """Reads pieces into a growing cache the way a sampler does, and remembers where each token belongs."""

    def __init__(self):
        self.config = model_config()
        self.model, self.params = Composer(self.config), composer_params()
        self.cache, self.read, self.rope, self.spans = None, 0, 0, 0

    def _meta(self, orders, mode, rope):
        n = len(orders)
        fields = {"sample": [0] * n, "order": orders, "span": [self.spans] * n, "mode": [mode] * n, "rope": rope}
        return {name: jnp.asarray(values, jnp.int32)[None] for name, values in fields.items()}

    def _append(self, streams, count, advance, x=None):
        _, new = self.model.apply({"params": self.params}, streams, x, self.cache, method=Composer.prefill)
        if self.cache is not None:
            new = {
                "k": jnp.concatenate([self.cache["k"], new["k"]], axis=2),
                "v": jnp.concatenate([self.cache["v"], new["v"]], axis=2),
                "meta": join(self.cache["meta"], new["meta"]),
            }
        self.cache = new
        self.read, self.rope, self.spans = self.read + count, self.rope + advance, self.spans + 1

    def text(self, ids):
        ids = [BOS, *ids, EOS]
        n = len(ids)
        orders = list(range(self.read, self.read + n))
        meta = self._meta(orders, CAUSAL, list(range(self.rope, self.rope + n)))
        self._append({"text": {"ids": jnp.asarray(ids, jnp.int32)[None], **meta}}, n, n)

    def _image(self, stream, rows, columns, side, x=None, **fields):
        n = rows * columns
        first, last = self.read, self.read + n + 1
        text = self._meta([first, last], FULL, [self.rope] * 2)
        text["ids"] = jnp.asarray([[START, END]], jnp.int32)
        inner = self._meta(list(range(first + 1, last)), FULL, [self.rope] * n)
        row, column = np.divmod(np.arange(n), columns)
        inner["position"] = jnp.asarray(row * side + column, jnp.int32)[None]
        self._append({"text": text, stream: {**inner, **fields}}, n + 2, 1, x)

    def picture(self, for_vae, for_vit, eps):
        config = self.config
        pixels = jnp.asarray(np.moveaxis(for_vae, 0, -1))[None]
        mean, logvar = jax.jit(partial(VAE(config.vae).apply, method="encode"))({"params": load_tree()["vae"]}, pixels)
        z = normalise(mean + jnp.exp(0.5 * logvar) * np.moveaxis(eps, 1, -1), config.vae)
        side = config.pixels_per_token
        rows, columns = pixels.shape[1] // side, pixels.shape[2] // side
        self._image("latent", rows, columns, config.latent_side, x=patchify(z, config.latent_patch))
        p = config.vision.patch
        rows, columns = for_vit.shape[1] // p, for_vit.shape[2] // p
        patches = np.moveaxis(for_vit, 0, -1).reshape(rows, p, columns, p, 3).transpose(0, 2, 1, 3, 4)
        patches = jnp.asarray(patches.reshape(1, rows * columns, -1))
        subject = jnp.zeros((1, rows * columns), jnp.int32)
        self._image("vision", rows, columns, config.vision.side, patches=patches, subject=subject)

    def check(self, golden, name):
        order = np.argsort(np.asarray(self.cache["meta"]["order"][0]))
        assert (self.read, self.rope) == (int(golden[f"{name}_kv_len"][0]), int(golden[f"{name}_rope"][0]))
        for layer in range(self.config.llm.layers):
            for part in "kv":
                recorded = f"{name}_{part}{layer}"
                assert_close(self.cache[part][layer, 0][order], golden[recorded], recorded)


@pytest.fixture(scope="module")
def golden():
    return np.load(FOLDER / "infer.npz")


@pytest.fixture(autouse=True)
def exact():
    with jax.default_matmul_precision("highest"):
        yield


def test_full_context_and_text_baseline(golden):
    reader, trace = Reader(), []
    for picture, prompt, eps in (("A", "prompt1_ids", "ctx_vae_eps_0"), ("B", "prompt2_ids", "ctx_vae_eps_1")):
        reader.picture(golden[f"img_{picture}_vae"], golden[f"img_{picture}_vit"], golden[eps])
        trace.append((reader.read, reader.rope))
        if picture == "B":
            reader.check(golden, "cfgtext")
        reader.text(golden[prompt])
        trace.append((reader.read, reader.rope))
    assert trace == [tuple(row) for row in golden["ctx_trace"]]
    reader.check(golden, "ctx")


def test_image_baseline_has_all_text_and_no_picture(golden):
    reader = Reader()
    reader.text(golden["prompt1_ids"])
    reader.text(golden["prompt2_ids"])
    reader.check(golden, "cfgimg")
