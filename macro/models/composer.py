"""The composer: one Mixture-of-Transformers that writes plans and denoises images. Start reading the model here.

    text, vision  --Planner.embed-->        understanding tokens --\
                                                                    MoT layers, one attention  --> next-token logits
    latents, t    --DiffusionHead.embed-->  generation tokens   ---/                           --> velocity

Training runs `__call__` over packed streams (`macro/inputs/packing.py` describes them). Sampling runs `prefill` over a
prompt and then over each token of the plan, and in each denoising step `embed_latent`, `denoise` (whose result a step
cache may predict instead, `macro/diffusion/step_cache.py`) and `velocity`.
Layout binding adds an embedding of the subject's number to the vision tokens that show the subject and, weighted by
share of area, to the latent tokens of its cells. It is zero at initialisation unless the config sets another scale, so
an imported BAGEL computes the same as before.
Sizes: `macro/models/variants.py`. Layers: `macro/nn/mot.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from macro.kernels.token_selection.api import gather_tokens
from macro.models.diffusion_head import DiffusionHead
from macro.models.planner import Planner
from macro.models.token_selection import TrainingSelection
from macro.models.variants import ModelConfig
from macro.nn.attention_probe import AttentionProbe
from macro.nn.layers import rope_angles
from macro.nn.mot import MoT
from macro.parallel.sharding import constrain, join_streams, join_tokens, split_tokens
from macro.sentence.attention_mask import MASK_FIELDS

Cache = dict


def mask_fields(stream: Mapping) -> dict:
    """The four integers per token that the attention mask needs."""
    return {name: stream[name] for name in MASK_FIELDS}


def concat_metadata(*streams: Mapping | None) -> dict:
    """Metadata of the text, vision and latent streams (None: absent), in the order of the cache of `prefill`."""
    return {name: join_streams(*(stream and stream[name] for stream in streams)) for name in MASK_FIELDS}


def index_cache(cache: Cache, rows: slice | Array) -> Cache:
    """A cache with the selected rows alone."""
    some = {name: cache[name][:, rows] for name in ("k", "v")}
    some["meta"] = {name: values[rows] for name, values in cache["meta"].items()}
    return some | ({"bias": cache["bias"][rows]} if "bias" in cache else {})


def image_ids(streams: Mapping) -> Int[Array, "b n"]:
    """The index of the image that each token belongs to, -1 for text, in the order of the cache of `prefill`."""
    images = (streams[name]["image"] if name in streams else None for name in ("vision", "latent"))
    return join_streams(jnp.full_like(streams["text"]["ids"], -1), *images)


def _text_of(und: Float[Array, "b n d"], text: Mapping, vision: Mapping | None) -> Float[Array, "b n_text d"]:
    """The text stream's part of the understanding tokens."""
    if vision is None:
        return und
    return split_tokens(und, [text["ids"].shape[1], vision["segment_ids"].shape[1]])[0]


class Composer(nn.Module):
    """Planner and diffusion head with shared layers; parameters are float32."""

    config: ModelConfig

    def setup(self):
        llm = self.config.llm
        self.planner = Planner(self.config)
        self.diffusion_head = DiffusionHead(self.config)
        self.mot = MoT(
            width=llm.width,
            mlp=llm.mlp,
            layers=llm.layers,
            heads=llm.heads,
            kv_heads=llm.kv_heads,
            head_dim=llm.head_dim,
            eps=llm.eps,
            dtype=self.config.dtype,
            remat=self.config.remat,
        )
        if self.config.binding:
            shape = (self.config.subjects + 1, llm.width)
            self.binding = self.param("binding", nn.initializers.normal(self.config.binding_init), shape)

    def __call__(
        self,
        streams: Mapping,
        x_t: Float[Array, "b n c"],
        t: Float[Array, "b n"],
        selection: TrainingSelection | None = None,
    ) -> dict[str, Array]:
        """The training forward pass over packed sequences.

        Args:
            streams: `text`, `vision`, `latent` as packed.
            x_t: latent tokens, noised to time `t` (0: clean).
            t: time of each latent token, float32.
            selection: which image tokens the later layers attend to; None: all.

        Returns:
            `text` [b, n_text, d]: final hidden states of the text stream; `velocity` [b, n_latent, c].
        """
        und = self._embed_und(streams["text"], streams["vision"])
        gen = self.embed_latent(streams["latent"], x_t, t)
        if selection is None:
            und, gen, *_ = self.mot(
                und, gen, *self._rope_and_metadata(*(streams[name] for name in ("text", "vision", "latent")))
            )
            text = _text_of(und, streams["text"], streams["vision"])
        else:
            text, gen = self._forward_pruned(und, gen, streams, selection)
        return {"text": text, "velocity": self.diffusion_head.velocity(gen)}

    def logits(self, hidden: Float[Array, "*shape d"]) -> Float[Array, "*shape v"]:
        """Next-token logits of text hidden states, float32."""
        return self.planner.logits(hidden)

    def prefill(
        self,
        streams: Mapping,
        x: Float[Array, "b n c"] | None = None,
        caches: Sequence[Cache] = (),
        probe: AttentionProbe | None = None,
    ) -> tuple[Float[Array, "b n_text d"], Cache, tuple[Array, ...] | None]:
        """Reads clean tokens: a prompt, or a part of one that follows the tokens in `caches`.

        Args:
            streams: `text`, and optionally `vision` (patches, or instead of them `tokens` from `embed_vision`) and
                `latent` (clean reference latents, time 0).
            x: the clean latents of `streams["latent"]`.
            caches: keys and values of the tokens read before, see `nn/mot.py`.
            probe: what to measure about the attention to image tokens.

        Returns:
            Final hidden states of the text stream; the cache of the new tokens alone: `k`, `v`
            [layers, b, n_new, kv_heads, head_dim] and `meta`, in the order text, vision, latent; and the result of
            the probe, [layers, rows, 2, keys] for each set of keys.
        """
        text, vision, latent = streams["text"], streams.get("vision"), streams.get("latent")
        und = self._embed_und(text, vision)
        gen = None if latent is None else self.embed_latent(latent, x, jnp.zeros(x.shape[:2], jnp.float32))
        rotations, meta = self._rope_and_metadata(text, vision, latent)
        und, _, new, found = self.mot(und, gen, rotations, meta, caches, probe)
        k, v = (constrain(kept, "layers", "batch", "tokens", "kv_heads", "head_dim") for kept in new)
        return _text_of(und, text, vision), {"k": k, "v": v, "meta": meta}, found

    def embed_latent(
        self, latent: Mapping, x_t: Float[Array, "b n c"], t: Float[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        """Embeds latent tokens at time t (0: clean) with their position, time and subjects."""
        tokens = self.diffusion_head.embed(x_t.astype(self.config.dtype), t, latent["position"])
        if self.config.binding:
            tokens = tokens + (latent["subjects"] @ self.binding).astype(tokens.dtype)
        return constrain(tokens, "batch", "tokens", "width")

    def denoise(
        self, caches: Sequence[Cache], text: Mapping, latent: Mapping, embedded: Float[Array, "b n d"]
    ) -> Float[Array, "b n d"]:
        """Runs the layers over a noised image after the cached context; gives the hidden state before the final norm.

        Args:
            caches: keys and values of the context, see `nn/mot.py`.
            text: the image's start and end tokens, `ids` and metadata [b, 2].
            latent: metadata [b, n] of the noised tokens.
            embedded: the noised tokens from `embed_latent`.
        """
        und = self.planner.embed_text(text["ids"])
        return self.mot.run(und, embedded, *self._rope_and_metadata(text, None, latent), caches)[1]

    def velocity(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b n c"]:
        """Velocity, float32, from the hidden state of `denoise`."""
        return self.diffusion_head.velocity(self.mot.gen_norm(hidden))

    def embed_vision(self, vision: Mapping) -> Float[Array, "b n d"]:
        """Vision tokens before layout binding, from `patches`, `position`, `segment_ids` and `block_id`."""
        return self.planner.embed_vision(vision)

    def _embed_und(self, text: Mapping, vision: Mapping | None) -> Float[Array, "b n d"]:
        tokens = self.planner.embed_text(text["ids"])
        if vision is None:
            return tokens
        seen = vision["tokens"] if "tokens" in vision else self.embed_vision(vision)
        if self.config.binding:
            bound = jnp.take(self.binding, vision["subject"], axis=0).astype(seen.dtype)
            seen = seen + jnp.where((vision["subject"] > 0)[..., None], bound, 0)
        return constrain(join_tokens([tokens, seen]), "batch", "tokens", "width")

    def _forward_pruned(self, und, gen, streams: Mapping, selection: TrainingSelection) -> tuple[Array, Array]:
        """Hidden states of text and latents; the layers after the last probed one attend to the kept tokens only."""
        text, vision, latent = streams["text"], streams["vision"], streams["latent"]
        rotations, meta = self._rope_and_metadata(text, vision, latent)
        probe, end = selection.probe(streams, image_ids(streams), meta, self.config.llm.layers)
        und, gen, (_, values), found = self.mot.run(und, gen, rotations, meta, (), probe, (0, end))
        kept, stays = selection.select(streams, meta, image_ids(streams), values, found, self.config.llm.layers)
        words, seen = split_tokens(und, [text["ids"].shape[1], vision["position"].shape[1]])
        seen = gather_tokens(seen, kept, "batch", "tokens", "width")
        names = *MASK_FIELDS, "position_ids"
        fields = {name: jnp.take_along_axis(vision[name], kept.indices, axis=1) for name in names}
        vision = fields | {"segment_ids": jnp.where(kept.valid, fields["segment_ids"], -1)}
        latent = {**latent, "segment_ids": jnp.where(stays, latent["segment_ids"], -1)}
        given = self._rope_and_metadata(text, vision, latent)
        und, gen, *_ = self.mot.run(join_tokens([words, seen]), gen, *given, part=(end, self.config.llm.layers))
        words, _ = split_tokens(und, [words.shape[1], seen.shape[1]])
        return self.mot.und_norm(words), self.mot.gen_norm(gen)

    def _rope_and_metadata(self, text: Mapping, vision: Mapping | None, latent: Mapping | None) -> tuple:
        """RoPE angles of understanding tokens and of latents (None without latents), and metadata of all tokens."""
        text_ids, vision_ids, latent_ids = (stream and stream["position_ids"] for stream in (text, vision, latent))
        angles = partial(rope_angles, head_dim=self.config.llm.head_dim, theta=self.config.llm.rope_theta)
        rotations = angles(join_streams(text_ids, vision_ids)), None if latent is None else angles(latent_ids)
        return rotations, concat_metadata(text, vision, latent)


def dummy_batch(model: ModelConfig) -> tuple[dict, Array, Array]:
    """Streams with one token each, latents and times: enough to shape every parameter by `Composer.init`."""
    place = jnp.zeros((1, 1), jnp.int32)
    meta = dict.fromkeys((*MASK_FIELDS, "position_ids"), place)
    patch = jnp.zeros((1, 1, model.vision.patch**2 * 3))
    streams = {
        "text": {**meta, "ids": place},
        "vision": {**meta, "patches": patch, "position": place, "subject": place},
        "latent": {**meta, "position": place, "subjects": jnp.zeros((1, 1, model.subjects + 1))},
    }
    return streams, jnp.zeros((1, 1, model.latent_channels)), jnp.zeros((1, 1))
