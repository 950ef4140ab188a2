"""Mixture-of-Transformers: two experts, one attention (BAGEL; spec of one layer below).

    x = Norm_e(tokens);  q, k, v = W_e x;  q, k = RMSNorm_e(q), RMSNorm_e(k) per head;  RoPE
    tokens += O_e attention(q, [k_cache; k_und; k_gen], [v ...])        one softmax over all tokens
    tokens += Down_e(silu(Gate_e y) * Up_e y),  y = PostNorm_e(tokens)

Understanding tokens (text and vision) and generation tokens (latents) have separate buffers, so that each expert
runs only on its own tokens, without gather or scatter. Keys and values are concatenated once.
Either buffer may be absent (None). Keys of earlier tokens come from caches, each a separate set of keys, which rows
of new tokens may share: the partial attention over each set is merged, so that no cache is ever copied.
Read next: `macro/models/composer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from macro.kernels.attention.api import attention_with_lse, merge_partial_attention
from macro.nn.attention_probe import AttentionProbe, probe_layer
from macro.nn.layers import ATTENTION_OUT, LORA, Dense, apply_remat, apply_rope
from macro.parallel.sharding import constrain, join_tokens, split_tokens

Und = Float[Array, "b nu d"] | None
Gen = Float[Array, "b ng d"] | None
Rotation = tuple[Float[Array, "b n half"], Float[Array, "b n half"]] | None


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast back, then scaled (the order Qwen2 computes in)."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return wide.astype(x.dtype) * scale.astype(x.dtype)


class Expert(nn.Module):
    """One expert's part of one layer: everything but the joint attention."""

    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    residual_scale: float
    dtype: Any

    def setup(self):
        def dense(features, bias=False, scale=1.0):
            init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
            return Dense(features, bias, self.dtype, init)

        self.input_norm = RMSNorm(self.eps)
        self.q = dense(self.heads * self.head_dim, bias=True)
        self.k = dense(self.kv_heads * self.head_dim, bias=True)
        self.v = dense(self.kv_heads * self.head_dim, bias=True)
        self.q_norm = RMSNorm(self.eps)
        self.k_norm = RMSNorm(self.eps)
        self.o = dense(self.width, scale=self.residual_scale)
        self.post_norm = RMSNorm(self.eps)
        self.gate = dense(self.mlp)
        self.up = dense(self.mlp)
        self.down = dense(self.width, scale=self.residual_scale)

    def project(self, x: Float[Array, "b n d"], rotation: Rotation):
        """Queries, keys and values `[b, n, heads, head_dim]`, normed and rotated."""
        x = self.input_norm(x)
        q = rearrange(self.q(x), "b n (h d) -> b n h d", d=self.head_dim)
        k = rearrange(self.k(x), "b n (h d) -> b n h d", d=self.head_dim)
        v = rearrange(self.v(x), "b n (h d) -> b n h d", d=self.head_dim)
        q, k = apply_rope(self.q_norm(q), *rotation), apply_rope(self.k_norm(k), *rotation)
        q = constrain(q, "batch", "tokens", "heads", "head_dim")
        return q, *(constrain(x, "batch", "tokens", "kv_heads", "head_dim") for x in (k, v))

    def finish(self, x: Float[Array, "b n d"], attended: Float[Array, "b n h hd"]) -> Float[Array, "b n d"]:
        """Output projection and MLP, each with its residual."""
        x = constrain(x + self.o(rearrange(attended, "b n h d -> b n (h d)")), "batch", "tokens", "width")
        y = self.post_norm(x)
        hidden = constrain(nn.silu(self.gate(y)) * self.up(y), "batch", "tokens", "mlp")
        return constrain(x + self.down(hidden), "batch", "tokens", "width")


class MoTLayer(nn.Module):
    """One layer of both experts. Called by `nn.scan`: the carry is (und, gen); cached keys are scanned per layer."""

    expert: Mapping[str, Any]

    def setup(self):
        self.und = Expert(**self.expert)
        self.gen = Expert(**self.expert)

    def __call__(self, tokens: tuple[Und, Gen], scanned, rotations, meta, read, probe: AttentionProbe | None):
        """One layer.

        Args:
            scanned: ((k, v) of each cache, whether this layer is probed); rotations, meta: of the new tokens.
            read: `meta` and optionally `bias` of each cache.

        Returns:
            ((und, gen), (k, v, found)); k and v `[b, n_und + n_gen, kv, hd]` are those of the new tokens, `found` is
            the probe's measurement (None without `probe`).
        """
        experts = [
            (expert, x, rotation)
            for expert, x, rotation in zip((self.und, self.gen), tokens, rotations, strict=True)
            if x is not None
        ]
        caches, probed = scanned
        projected = [expert.project(x, rotation) for expert, x, rotation in experts]
        q, k, v = (join_tokens(parts) for parts in zip(*projected, strict=True))
        parts = [attention_with_lse(q, k, v, meta, meta)]
        for cache, about in zip(caches, read, strict=True):
            old = (x.astype(k.dtype) for x in cache)
            parts.append(attention_with_lse(q, *old, meta, about["meta"], about.get("bias")))
        attended, lse = merge_partial_attention(parts)
        attended = checkpoint_name(attended, ATTENTION_OUT)
        found = None
        if probe is not None:
            keys = [(k, meta), *((cache[0], about["meta"]) for cache, about in zip(caches, read, strict=True))]
            found = probe_layer(probe, probed, q, lse, meta, keys)
        shares = split_tokens(attended, [x.shape[1] for _, x, _ in experts])
        finished = iter([expert.finish(x, share) for (expert, x, _), share in zip(experts, shares, strict=True)])
        return tuple(None if x is None else next(finished) for x in tokens), (k, v, found)


class MoT(nn.Module):
    """The stack of layers and the two final norms, scanned so that compile time does not grow with depth."""

    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    dtype: Any
    remat: str

    def setup(self):
        expert = {
            "width": self.width,
            "mlp": self.mlp,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "eps": self.eps,
            # Two residual branches a layer: their sum keeps the variance of the stream at initialisation.
            "residual_scale": 1.0 / (2 * self.layers),
            "dtype": self.dtype,
        }
        self.expert = expert
        scanned = nn.scan(
            apply_remat(MoTLayer, self.remat),
            variable_axes={"params": 0, LORA: 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(0, *[nn.broadcast] * 4),
            length=self.layers,
        )
        self.blocks = scanned(expert)
        self.und_norm = RMSNorm(self.eps)
        self.gen_norm = RMSNorm(self.eps)

    def __call__(self, und: Und, gen: Gen, rotations, meta, caches: Sequence = (), probe: AttentionProbe | None = None):
        """Runs all layers, then the final norms."""
        und, gen, *rest = self.run(und, gen, rotations, meta, caches, probe)
        und = None if und is None else self.und_norm(und)
        gen = None if gen is None else self.gen_norm(gen)
        return und, gen, *rest

    def run(
        self,
        und: Und,
        gen: Gen,
        rotations,
        meta,
        caches: Sequence = (),
        probe: AttentionProbe | None = None,
        part: tuple[int, int] | None = None,
    ):
        """Runs all layers, or a range of them.

        Args:
            und, gen: `[b, n, d]` token embeddings of the two buffers, or None.
            rotations: RoPE cosines and sines for each buffer, None where the buffer is.
            meta: metadata of the new tokens, und before gen.
            caches: earlier tokens, `k`, `v` `[layers, rows, n_cache, kv, hd]`, `meta` and optionally `bias` each;
                rows = b, or a divisor: then b / rows consecutive rows of new tokens share one.
            probe: what to measure about image tokens in these layers.
            part: range [first, last) of the layers to run; None: all.

        Returns:
            und, gen before the final norms, (k, v) `[layers, b, n_new, kv, hd]` of the new tokens, and the probe's
            measurement, `[layers, rows, 2, keys]` for each set of keys.
        """
        keys = tuple((cache["k"], cache["v"]) for cache in caches)
        read = tuple({name: cache[name] for name in ("meta", "bias") if name in cache} for cache in caches)
        probed = None if probe is None else probe.layer_flags(self.layers)
        given = (und, gen), (keys, probed), rotations, meta, read, probe
        (und, gen), (k, v, found) = self.blocks(*given) if part is None else self._run_part(slice(*part), *given)
        return und, gen, (k, v), found

    def _run_part(self, part: slice, tokens, scanned, *rest):
        """As `blocks`, with the parameters of a range of layers."""
        layer = apply_remat(MoTLayer, self.remat)(self.expert, parent=None)

        def run(tokens, of_layer):
            variables, scanned = of_layer
            return layer.apply(variables, tokens, scanned, *rest)

        variables = self.blocks.variables
        of_layers = {name: variables[name] for name in ("params", LORA) if name in variables}, scanned
        return jax.lax.scan(run, tokens, jax.tree.map(lambda x: x[part], of_layers))
