"""BAGEL's contexts as KV caches that grow piece by piece: a text, a picture, a thought.

    piece            full    no_text (text baseline)          no_image (image baseline)
    text             reads   skips; RoPE +0                   reads
    picture          reads   reads                            skips; RoPE +1 for each of its two copies
    thought          reads   skips                            reads
    system prompt    reads   reads                            reads

In parity mode `no_text` is instead what `full` was before the last text, or after the last picture if that came
later; `no_image` neither moves on for a picture nor reads the thought. Which of the two is wanted, and why, stands
in `options.py`. A picture is read as two copies, each a span of its own between start and end token: clean VAE
latents at time 0 (generation expert), then ViT patches (understanding expert).

Contexts that have read the same so far share a cache, and what they both take is read once: pictures that stand before
all text, in `full` and `no_text`. Caches are buffers of one size per drawing, so that each kind of piece compiles once;
places that nobody has written yet are padding to the rule of sight. Read next: `macro/sampling/bagel/pipeline.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from macro.inputs.packing import PackingConfig, framed, pack_target
from macro.inputs.pieces import Cursor
from macro.inputs.transforms import grid_positions, patchify
from macro.kernels.token_selection.api import query_counts
from macro.models import vae as vae_lib
from macro.models.composer import Cache, Composer, mask_fields
from macro.models.selection import Selection
from macro.models.variants import ModelConfig
from macro.nn.asking import Asking
from macro.sampling.bagel.sizes import Picture
from macro.sampling.contexts import capacity
from macro.sampling.strengths import log_strengths
from macro.sentence.layout import NUM_CLASSES
from macro.sentence.sight import CAUSAL, FIELDS, FULL

Posterior = Float[Array | np.ndarray, "1 _ _ z"]
NAMES = ("full", "no_text", "no_image")
COPIES = 2  # of a picture in a context: VAE and ViT
WIDE = 1 << 20  # more than the tokens of a picture
WORD, NOBODY = -1, -2


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What has been read.

    Attributes:
        cache: `k`, `v` [layers, 1, places, kv, hd] and `meta` [1, places].
        end: where the next token stands. used: how many places are taken, padding among them.
        tokens: int[places] which token of which picture stands there, `picture * WIDE + token` over both copies, the
            same in every context; WORD for text, NOBODY for padding.
        heard: [2, places] how much text and other pictures looked at each token, summed over the layers that were
            asked, and counts [2, places] of those who could; zeros where nothing was asked.
    """

    cache: Cache
    end: Cursor
    used: int
    tokens: np.ndarray
    heard: Array
    counts: Array


class Contexts:
    """The contexts of one drawing. Reading changes what `of[name]` is, never a `Context` itself."""

    def __init__(
        self,
        params: Mapping,
        config: ModelConfig,
        tokenizer,
        packing: PackingConfig,
        places: int,
        names: Sequence[str] = NAMES,
        parity: bool = False,
        selection: Selection | None = None,
    ):
        """Args:
        params: `composer` and `vae`.
        places: size of the buffers; `text_places` and `picture_places` count what pieces take.
            What goes beyond makes them grow.
        names: the contexts to keep, some of NAMES.
        selection: what `full` is asked for while it reads; `macro/sampling/bagel/select.py` then chooses.
        """
        self.params, self.config, self.tokenizer, self.packing = params, config, tokenizer, packing
        self.parity, self.selection, self.pictures = parity, selection, 0
        places = capacity(places)
        nothing = np.full(places, NOBODY), jnp.zeros((2, places)), jnp.zeros((2, places))
        self.of = dict.fromkeys(names, Context(_empty(config, places), Cursor(), 0, *nothing))

    def system(self, ids: Sequence[int]) -> None:
        """Reads a system prompt."""
        self._words(ids, NAMES)

    def text(self, ids: Sequence[int]) -> None:
        """Reads a text of the user's."""
        self._snapshot()
        self._words(ids, ("full", "no_image"))

    def thought(self, ids: Sequence[int]) -> None:
        """Reads what the model thought."""
        self._words(ids, ("full",) if self.parity else ("full", "no_image"))

    def picture(self, picture: Picture, posterior: Posterior | None = None) -> None:
        """Reads a picture.

        Args:
            picture: as the VAE sees it, and as the ViT does.
            posterior: noise that its clean latents are drawn with; None takes their mean.
        """
        takers = ("full",) if self.parity else ("full", "no_text")
        self._latents(picture[0], posterior, takers)
        self._patches(picture[1], takers)
        self.pictures += 1
        self._snapshot()
        if "no_image" in self.of and not self.parity:
            context = self.of["no_image"]
            end = context.end._replace(rope=context.end.rope + COPIES)
            self.of["no_image"] = dataclasses.replace(context, end=end)

    def _snapshot(self) -> None:
        if self.parity and "no_text" in self.of:
            self.of["no_text"] = self.of["full"]

    def _words(self, ids: Sequence[int], takers: Sequence[str]) -> None:
        ids = np.array([self.tokenizer.bos, *ids, self.tokenizer.eos], np.int32)
        places = text_places(len(ids) - 2)
        sample = np.where(np.arange(places) < len(ids), 0, -1).astype(np.int32)
        for context, names in self._alike(takers):
            end = context.end
            text = {
                "ids": np.pad(ids, (0, places - len(ids))),
                "sample": sample,
                "order": end.order + np.arange(places, dtype=np.int32),
                "span": np.full(places, end.span, np.int32),
                "mode": np.full(places, CAUSAL, np.int32),
                "rope": end.rope + np.arange(places, dtype=np.int32),
            }
            tokens = np.where(sample < 0, NOBODY, WORD)
            self._read(names, {"text": text}, None, tokens, Cursor(len(ids), 1, len(ids)))

    def _latents(self, pixels: np.ndarray, posterior, takers: Sequence[str]) -> None:
        stride = self.config.pixels_per_token
        rows, columns = pixels.shape[0] // stride, pixels.shape[1] // stride
        position = grid_positions(rows, columns, self.config.latent_side)
        noise = None if posterior is None else jnp.asarray(posterior)
        x = clean_latents(self.params["vae"], jnp.asarray(pixels)[None], noise, config=self.config)
        values = {"subjects": np.zeros((len(position), NUM_CLASSES), np.float32)}
        self._copy("latent", position, values, x, takers)

    def _patches(self, pixels: np.ndarray, takers: Sequence[str]) -> None:
        vision = self.config.vision
        rows, columns = pixels.shape[0] // vision.patch, pixels.shape[1] // vision.patch
        position = grid_positions(rows, columns, vision.side)
        values = {"patches": patchify(pixels, vision.patch), "subject": np.zeros(len(position), np.int32)}
        self._copy("vision", position, values, None, takers)

    def _copy(self, stream: str, position: np.ndarray, values: dict, x, takers: Sequence[str]) -> None:
        n = len(position) + 2
        for context, names in self._alike(takers):
            text, inner = framed(context.end, position, FULL, self.tokenizer)
            first = self.pictures * WIDE + np.sum(context.tokens // WIDE == self.pictures)
            tokens = np.concatenate([[WORD] * 2, first + np.arange(n - 2)])
            self._read(names, {"text": text, stream: inner | values}, x, tokens, Cursor(n, 1, 1))

    def _alike(self, takers: Sequence[str]) -> list[tuple[Context, list[str]]]:
        """The takers that are kept, those together that have read the same so far: for them it is read once."""
        kept = [name for name in takers if name in self.of]
        return [(c, [name for name in kept if self.of[name] is c]) for c in dict.fromkeys(self.of[n] for n in kept)]

    def _read(
        self, names: Sequence[str], streams: dict, x: Array | None, tokens: np.ndarray, moves: Cursor
    ) -> None:
        context, places = self.of[names[0]], len(tokens)
        streams = {
            stream: {field: jnp.asarray(values)[None] for field, values in fields.items()}
            for stream, fields in streams.items()
        }
        used = context.used
        if used + places > len(context.tokens):
            context = _longer(context, capacity(used + places))
        asking = self._asking(context.tokens, tokens) if "full" in names else None
        given = streams, x, jnp.int32(used), asking
        heard = context.heard, context.counts
        cache, heard, counts = _append(self.params["composer"], context.cache, *given, *heard, config=self.config)
        end = Cursor(*(a + b for a, b in zip(context.end, moves, strict=True)))
        known = context.tokens.copy()
        known[used : used + places] = tokens
        self.of |= dict.fromkeys(names, Context(cache, end, used + places, known, heard, counts))

    def _asking(self, known: np.ndarray, new: np.ndarray) -> Asking | None:
        """What to ask while `new` tokens are read after `known` ones."""
        if self.selection is None:
            return None
        new, known = (jnp.asarray(picture_of(tokens), jnp.int32)[None] for tokens in (new, known))
        return self.selection.asking(self.config.llm.layers, new, [new, known], [0, 1], rows=1)

    def side_by_side(self, names: Sequence[str]) -> Cache:
        """The caches of some contexts as one batch, context by context."""
        most = max(len(self.of[name].tokens) for name in names)
        caches = [_longer(self.of[name], most).cache for name in names]
        batch = {part: jnp.concatenate([cache[part] for cache in caches], axis=1) for part in ("k", "v")}
        return batch | {"meta": {field: jnp.concatenate([c["meta"][field] for c in caches]) for field in FIELDS}}

    def biases(self, names: Sequence[str], strengths: Sequence[float]) -> Float[Array, "b n"]:
        """What the strength of each picture adds to its keys, in the rows of `side_by_side`."""
        pictures = [picture_of(self.of[name].tokens) for name in names]
        most = max(map(len, pictures))
        whole = [np.pad(each, (0, most - len(each)), constant_values=-1) for each in pictures]
        return jnp.asarray(log_strengths(strengths)[np.stack(whole)])

    def targets(self, names: Sequence[str], copies: int, size: tuple[int, int]) -> tuple[dict, dict]:
        """The framing tokens and the latent tokens of the pictures to draw: context by context, copy by copy."""
        packed = [pack_target(self.of[name].end, size, self.tokenizer, self.packing) for name in names]

        def rows(stream: str) -> dict:
            fields = packed[0][stream]
            return {f: np.repeat(np.stack([one[stream][f] for one in packed]), copies, axis=0) for f in fields}

        return rows("text"), rows("latent")


def text_places(tokens: int) -> int:
    """Places of the buffer that a text of so many tokens (without bos and eos) takes."""
    return capacity(tokens + 2)


def picture_places(picture: Picture, config: ModelConfig) -> int:
    """Places of the buffer that both copies of a picture take."""
    strides, places = (config.pixels_per_token, config.vision.patch), 0
    for pixels, stride in zip(picture, strides, strict=True):
        places += (pixels.shape[0] // stride) * (pixels.shape[1] // stride) + 2
    return places


def _empty(config: ModelConfig, places: int) -> Cache:
    llm = config.llm
    shape = (llm.layers, 1, places, llm.kv_heads, llm.head_dim)
    meta = {name: jnp.full((1, places), -1, jnp.int32) for name in FIELDS}
    return {"k": jnp.zeros(shape, config.dtype), "v": jnp.zeros(shape, config.dtype), "meta": meta}


def picture_of(tokens: np.ndarray) -> np.ndarray:
    """The number of the picture that each token shows, -1 for words and padding."""
    return np.where(tokens < 0, -1, tokens // WIDE)


def _longer(context: Context, places: int) -> Context:
    """The context with so many places."""
    cache, more = context.cache, places - len(context.tokens)
    longer = {part: jnp.pad(cache[part], ((0, 0), (0, 0), (0, more), (0, 0), (0, 0))) for part in ("k", "v")}
    meta = {name: jnp.pad(x, ((0, 0), (0, more)), constant_values=-1) for name, x in cache["meta"].items()}
    heard, counts = (jnp.pad(x, ((0, 0), (0, more))) for x in (context.heard, context.counts))
    tokens = np.pad(context.tokens, (0, more), constant_values=NOBODY)
    return Context(longer | {"meta": meta}, context.end, context.used, tokens, heard, counts)


@partial(jax.jit, static_argnames="config")
def _append(params, cache, streams, x, used, asking, heard, counts, *, config):
    """The cache with the tokens of `streams` read after it and put into its places from `used` on; and what those who
    read them add to `heard` and `counts`."""
    given = streams, x, (cache,), asking
    _, new, asked = Composer(config).apply({"params": params}, *given, method=Composer.prefill)
    if asking is not None:
        metas = new["meta"], cache["meta"]
        seen = [query_counts(metas[0], m, asking.q_picture, p) for m, p in zip(metas, asking.k_pictures, strict=True)]
        heard, counts = (
            jax.lax.dynamic_update_slice_in_dim(total + old[0], own[0], used, 1)
            for total, (own, old) in ((heard, [jnp.sum(each, axis=0) for each in asked]), (counts, seen))
        )
    made = {
        part: jax.lax.dynamic_update_slice_in_dim(cache[part], new[part].astype(cache[part].dtype), used, 2)
        for part in ("k", "v")
    }
    made["meta"] = {
        name: jax.lax.dynamic_update_slice_in_dim(cache["meta"][name], values, used, 1)
        for name, values in mask_fields(new["meta"]).items()
    }
    return made, heard, counts


@partial(jax.jit, static_argnames="config")
def clean_latents(
    vae: Mapping,
    pixels: Float[Array, "1 h w 3"],
    noise: Float[Array, "1 h2 w2 z"] | None,
    *,
    config: ModelConfig,
) -> Float[Array, "1 n c"]:
    """Latent tokens of a picture in -1..1: the posterior's mean, or a draw from it with this noise."""
    latent, logvar = vae_lib.VAE(config.vae).apply({"params": vae}, pixels, method=vae_lib.VAE.encode)
    if noise is not None:
        latent = latent + jnp.exp(0.5 * logvar) * noise
    return vae_lib.patchify(vae_lib.normalise(latent, config.vae), config.latent_patch)
