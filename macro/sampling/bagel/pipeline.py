"""BAGEL's own inference: a list of texts and pictures in, a picture (and a thought) out.

    pipeline = macro.load("bagel.safetensors", {"sampling": {"mode": "bagel"}, ...})
    pipeline.interleave([picture, "make it blue"], cfg_img_scale=2.0).pictures[0]
    pipeline.compose("make it blue", ["house.png"], think=True).pixels

    pieces --read--> three contexts --think--> a thought, read too --draw--> latents --> pictures

The denoising loop, guidance and decoder are those of the planned mode (`macro/sampling/draw.py`), so are plan and
report: here a plan is a thought without a grid. Options, and what differs from the released code: `options.py`.
Read next: `macro/sampling/bagel/contexts.py`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from macro.diffusion import guidance
from macro.diffusion.flow import sampling_times
from macro.inputs.packing import PackingConfig
from macro.models.selection import read_selection
from macro.models.variants import ModelConfig
from macro.sampling.bagel.contexts import NAMES, Contexts, Posterior, picture_places, text_places
from macro.sampling.bagel.options import BagelOptions
from macro.sampling.bagel.select import select
from macro.sampling.bagel.sizes import Picture, prepared, target_size
from macro.sampling.bagel.think import SYSTEM, think
from macro.sampling.candidates import Candidate, pick
from macro.sampling.draw import candidate_keys, decode_pictures, draw, noise_of
from macro.sampling.pipeline import Composition, timed
from macro.sampling.placement import on, placed
from macro.sampling.plan import Writing
from macro.sampling.settings import Settings, read_reuse
from macro.sampling.strengths import by_span, check_strengths
from macro.sentence.formats import compose_sentence
from macro.sentence.plan import Plan, parse_think, wrap_think
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.images import Pixels, to_uint8

_POSTERIOR = 2**31  # keys of given pictures count from here, those of candidates from 0


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """What `BagelPipeline.interleave` returns.

    Attributes:
        pictures: uint8[h, w, 3] each. latents: [pictures, n, c] at t = 0.
        thought: what was thought, None without think mode. score: its mean log-likelihood, nats a token; 0 if none
            was written.
        contexts: what was read (all that guidance asked for).
        seconds: time of each stage.
        full_steps: how many of the steps ran the layers (`options.reuse`).
    """

    pictures: list[np.ndarray]
    latents: Array
    thought: str | None
    score: float
    contexts: Contexts
    seconds: Mapping[str, float]
    full_steps: int


class BagelPipeline:
    """A model with all that BAGEL's own inference needs; the same calls as `sampling.pipeline.Pipeline`."""

    def __init__(
        self,
        params: Mapping,
        config: ModelConfig,
        tokenizer,
        packing: PackingConfig,
        options: BagelOptions,
        mesh: Mesh | None = None,
    ):
        """
        Args:
            params: holds `composer` and `vae`.
            packing: says how the model's tokens lie.
            mesh: of devices that share the work; None: the one that JAX takes.
        """
        self.params, self._mesh = placed(params, config, mesh), mesh
        self.config, self.tokenizer, self.packing, self.settings = config, tokenizer, packing, options

    def compose(
        self,
        instruction: str,
        images: Sequence[str | os.PathLike | np.ndarray] = (),
        plan: Plan | None = None,
        candidates: int = 1,
        seed: int | None = None,
        size: tuple[int, int] | None = None,
        strengths: Sequence[float] | None = None,
        source: str | os.PathLike | np.ndarray | None = None,
        **changes,
    ) -> Composition:
        """Draws what an instruction says; pictures that it does not name as `<image n>` come first.

        Args:
            instruction, images, source: see `formats.compose_sentence`.
            plan: a thought to draw from instead of one that the model writes; it has no grid.
            candidates: how many pictures of one thought.
            seed, size: instead of the options' own.
            strengths: how much each picture counts in drawing, as `Pipeline.compose` has them.
            **changes: fields of `BagelOptions` for this call, such as num_timesteps=30.

        Raises:
            UserError: a picture that cannot be read, or an option that makes no sense.
        """
        changes |= {} if seed is None else {"seed": seed}
        sentence = compose_sentence(instruction, images, size, source)
        return self.compose_sentence(sentence, plan, candidates, strengths=strengths, **changes)

    def compose_sentence(
        self,
        sentence: Sentence,
        plan: Plan | None = None,
        candidates: int = 1,
        seed: int | None = None,
        strengths: Sequence[float] | None = None,
        **changes,
    ) -> Composition:
        """As `compose`, for a sentence whose pictures are loaded; its target, if it has one, says the size."""
        if plan is not None and plan.grid is not None:
            raise UserError("plan: it has a layout, but mode 'bagel' draws from words alone; take the grid out")
        check_strengths(strengths, len(sentence.images))
        changes |= {} if seed is None else {"seed": seed}
        options = dataclasses.replace(self.settings, **changes)
        pieces = [span.text if isinstance(span, Text) else span.pixels for span in sentence if _is_piece(span)]
        size = None if sentence.target is None else sentence.target.size
        sources = [n for n, image in enumerate(sentence.images) if image.role == "source"]
        drawn = self.interleave(
            pieces,
            options,
            like=sources[0] if sources else -1,
            thought=wrap_think(plan.cot) if plan is not None and plan.cot else None,
            pictures=candidates,
            size=size,
            strengths=None if strengths is None else _of_pieces(sentence, strengths),
        )
        made = Plan(parse_think(drawn.thought or ""))
        results = tuple(Candidate(made, pixels, drawn.score) for pixels in drawn.pictures)
        shown = tuple(span for span in sentence if _is_piece(span))
        sentence = sentence.replace(spans=(*shown, Target(size=results[0].pixels.shape[:2])))
        return Composition(
            sentence,
            results,
            pick(results),
            options.seed,
            settings_of(options),
            plan is not None,
            drawn.seconds,
            drawn.full_steps,
            None if strengths is None else tuple(strengths),
        )

    def interleave(
        self,
        pieces: Sequence[str | Pixels | Picture],
        options: BagelOptions | None = None,
        *,
        thought: str | None = None,
        pictures: int = 1,
        size: tuple[int, int] | None = None,
        strengths: Sequence[float] | None = None,
        like: int = -1,
        noise: Float[Array | np.ndarray, "b n c"] | None = None,
        posterior: Sequence[Posterior] | None = None,
        **changes,
    ) -> Drawn:
        """Reads texts and pictures in the order given, and draws.

        Args:
            pieces: texts, and pictures uint8[h, w, 3] (or the pair of float pictures that VAE and ViT see).
            options: instead of the pipeline's own; `changes` are single fields.
            thought: to be read instead of one that is written; asks for think mode. With or without its marks.
            pictures: how many to draw at once.
            size: (height, width), stands over the options.
            strengths: of the pictures in `pieces`, in their order.
            like: which of them lends its size where none is asked for: by BAGEL's rule the last.
            noise: what the pictures start from, instead of what follows from the seed: for replays.
            posterior: the same for the clean latents of each picture given.
        """
        with on(self._mesh):
            how = pictures, size, strengths, like, noise, posterior
            return self._interleaved(pieces, options, thought, *how, changes)

    def _interleaved(
        self, pieces, options, thought, pictures, size, strengths, like, noise, posterior, changes
    ) -> Drawn:
        options = dataclasses.replace(options or self.settings, **changes)
        if thought is not None:
            options = dataclasses.replace(options, think=True)
        settings = settings_of(options)  # here, so that a mistake in them is named before anything is read
        check_strengths(strengths, sum(not isinstance(piece, str) for piece in pieces))
        if not pieces:
            raise UserError("nothing to draw from; give a text or a picture")
        if pictures < 1:
            raise UserError(f"candidates: {pictures}, but it must be at least 1")
        given = sum(not isinstance(piece, str) for piece in pieces)
        most = None if options.parity else self.packing.images.reference_area(given)
        items = [self._prepared(piece, options, most) for piece in pieces]
        given = [item[0].shape[:2] for item in items if isinstance(item, tuple)]
        size = target_size(options, self.config, given if options.parity else given[like:][:1], size)
        seconds: dict[str, float] = {}
        with timed(seconds, "prompt"):
            read = self._prompt(items, options, posterior, thought, settings.select)
        thought_keys, noise_keys = candidate_keys(options.seed, pictures)
        score = 0.0
        if options.think:
            with timed(seconds, "plan"):
                thought, score = self._think(read, options, thought, thought_keys[0])
        if settings.select is not None:
            with timed(seconds, "select"):
                select(read, settings.select, options.seed)
                jax.block_until_ready(read.of["full"].cache)
        with timed(seconds, "draw"):
            if noise is None:
                rows, columns = self._cells(size)
                noise = noise_of(noise_keys, rows * columns, self.config.latent_channels)
            latents, full = self._draw(read, options, size, jnp.asarray(noise), strengths, settings.reuse)
        with timed(seconds, "decode"):
            drawn = self._decode(latents, size, options)
        return Drawn(drawn, latents, thought, score, read, seconds, full)

    def _prompt(self, items: Sequence, options: BagelOptions, posterior, thought, selection) -> Contexts:
        """The contexts after all pieces, which are prepared: texts as ids, and pictures."""
        system = self.tokenizer.encode(SYSTEM) if options.think else None
        most = options.max_think_token_n if thought is None else len(self.tokenizer.encode(thought))
        places = sum(
            text_places(len(item)) if isinstance(item, list) else picture_places(item, self.config)
            for item in items
        )
        places += text_places(len(system)) + text_places(most) if options.think else 0
        names = _guidance(options).contexts if not options.parity else NAMES
        given = self.params, self.config, self.tokenizer, self.packing, places, names, options.parity
        read = Contexts(*given, selection=selection)
        if system is not None:
            read.system(system)
        pictures = 0
        for item in items:
            if isinstance(item, list):
                read.text(item)
            else:
                read.picture(item, self._posterior(item, options, posterior, pictures))
                pictures += 1
        jax.block_until_ready(read.of["full"].cache)
        return read

    def _prepared(self, piece, options: BagelOptions, most: int | None) -> list[int] | Picture:
        if isinstance(piece, str):
            return self.tokenizer.encode(piece)
        return piece if isinstance(piece, tuple) else prepared(piece, options, self.config, most)

    def _posterior(self, picture: Picture, options: BagelOptions, given, number: int):
        if given is not None:
            return given[number]
        if not (options.sample_posterior or options.parity):
            return None
        key = jax.random.fold_in(jax.random.key(options.seed), _POSTERIOR + number)
        stride, (height, width) = self.config.vae.stride, picture[0].shape[:2]
        return jax.random.normal(key, (1, height // stride, width // stride, self.config.vae.z))

    def _think(self, read: Contexts, options: BagelOptions, thought: str | None, key) -> tuple[str, float]:
        """The thought, given or written now; read by the contexts that do."""
        score = 0.0
        if thought is None:
            ids, score = think(
                self.params["composer"],
                read.of["full"],
                self.tokenizer,
                key,
                config=self.config,
                temperature=options.text_temperature if options.do_sample else 0.0,
                limit=options.max_think_token_n,
            )
            thought = self.tokenizer.decode(ids)
        if not options.parity:
            thought = wrap_think(parse_think(thought))
        read.thought(self.tokenizer.encode(thought))
        return thought, score

    def _draw(self, read: Contexts, options: BagelOptions, size: tuple[int, int], noise: Array, strengths, reuse):
        """Latent tokens of every picture, and how many steps ran the layers."""
        guided = _guidance(options)
        frame, latent = read.targets(guided.contexts, len(noise), size)
        cache = read.side_by_side(guided.contexts)
        if strengths is not None:
            cache["bias"] = read.biases(guided.contexts, strengths)
        tokens, full = draw(
            self.params["composer"],
            [cache],
            frame,
            latent,
            noise,
            sampling_times(options.steps + 1, options.timestep_shift),
            config=self.config,
            guidance=guided,
            reuse=reuse,
        )
        return jax.block_until_ready(tokens), int(full)

    def _decode(self, latents: Array, size: tuple[int, int], options: BagelOptions) -> list[np.ndarray]:
        rows, columns = self._cells(size)
        values = decode_pictures(self.params["vae"], latents, rows=rows, columns=columns, config=self.config)
        return list(_cut_off(values) if options.parity else to_uint8(values))

    def _cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of latent tokens."""
        return size[0] // self.config.pixels_per_token, size[1] // self.config.pixels_per_token


def _is_piece(span) -> bool:
    return isinstance(span, Text | Image)


def _of_pieces(sentence: Sentence, strengths: Sequence[float]) -> list[float]:
    """Strengths by number of the picture, as the pictures stand."""
    shown = [span for span in sentence if isinstance(span, Image | Target)]
    found = zip(shown, by_span(sentence, strengths), strict=True)
    return [strength for span, strength in found if isinstance(span, Image)]


def _guidance(options: BagelOptions) -> guidance.Guidance:
    return guidance.bagel(
        options.cfg_text_scale,
        options.cfg_img_scale,
        options.cfg_interval,
        options.cfg_renorm_type,
        options.cfg_renorm_min,
        options.parity,
    )


def settings_of(options: BagelOptions) -> Settings:
    """The options in the words of the planned mode, for its report."""
    temperature = options.text_temperature if options.do_sample else 0.0
    writing = Writing(temperature, 1.0, 0.0, 1.0, limit=options.max_think_token_n)
    asked = {"reuse": read_reuse(options.reuse), "select": read_selection(options.select, "sampling.select")}
    return Settings(options.steps, options.timestep_shift, _guidance(options), writing, **asked)


def _cut_off(values: Array | np.ndarray) -> np.ndarray:
    """-1..1 to 0..255 as the released code does: the fraction is dropped."""
    return (np.clip(np.asarray(values, np.float32) * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
