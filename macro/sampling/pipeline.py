"""The pipeline from a sentence with images in it to a plan and an image.

    pipeline = macro.load("demo")
    result = pipeline.compose("<image 1> leans on <image 2>.", ["dog.png", "lamp.jpg"], candidates=4)
    result.plan, result.pixels

    sentences --context_spans--> what each context reads --prefill--> KV caches --plan_decoding--> plans or thoughts
        --read_plans--> caches --drop_tokens--> fewer tokens --denoise--> latents --decode--> images

One pipeline serves every model of this library, MUSIC's, INSET's and BAGEL's; `SamplingOptions` selects the steps and
the contexts of guidance. All randomness depends on (seed, candidate) alone; but with a threshold step cache the steps
skipped depend on all rows of a batch. Programs are compiled per buffer size (`contexts.capacity`), so only the first
call of a size is slow. Questions about images, answered in text: `chat`.
Read next: `options.py`, `contexts.py`, `prefill.py`, `plan_decoding.py`, `denoise.py`, in this order.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from macro.diffusion.flow import sampling_times
from macro.inputs.packing import PackingConfig
from macro.models.composer import Cache
from macro.models.variants import ModelConfig
from macro.sampling.chat import Chat
from macro.sampling.contexts import Continuation, Prompt, continue_prompt, prompt_of
from macro.sampling.denoise import candidate_keys, decode_images, denoise, noise_of
from macro.sampling.drop_tokens import Choice, choice_of, drop_tokens
from macro.sampling.image_weights import check_weights, key_biases
from macro.sampling.options import SamplingOptions
from macro.sampling.placement import on, placed
from macro.sampling.plan_decoding import PlanDecoder, generate
from macro.sampling.prefill import gathered, names_of, read_plans, read_prompt
from macro.sentence.layout import validate_grid
from macro.sentence.plan import Plan, parse_think
from macro.sentence.prompt import arrange, build_sentence
from macro.sentence.spans import Sentence, Target
from macro.utils.errors import UserError
from macro.utils.images import to_uint8

# The system prompt with which the released BAGEL was trained to think before it draws.
THINK_PROMPT = (
    "You should first think about the planning process in the mind and then generate the image. \n"
    "The planning process is enclosed within <think> </think> tags, i.e. "
    "<think> planning process here </think> image here"
)
_POSTERIOR = 2**31  # key numbers of given images start here, those of candidates at 0


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One plan and the image generated after it.

    Attributes:
        plan: text and layout; a thought has text alone; empty if none was generated or given.
        pixels: uint8[h, w, 3].
        score: mean log-likelihood of the plan's tokens in nats, at most 0; None without a plan.
        latents: float32[n, c], the image's latent tokens before the VAE's decoder.
    """

    plan: Plan
    pixels: np.ndarray
    score: float | None
    latents: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PipelineOutput:
    """What `Pipeline.compose` returns.

    Attributes:
        sentence: the request; its target has the size of the images.
        candidates: every plan and image.
        best: index of the candidate with the highest score; 0 if nothing was scored (`scored`).
        seed, options, strengths: what to pass in to reproduce the result.
        given: whether the plan was passed in.
        seconds: duration of each stage; the first call of a size includes compilation.
        full_steps: number of steps that ran the layers (`options.step_cache`).
        ends: context name -> (tokens, position id) at the end of the first candidate's context, before denoising.
    """

    sentence: Sentence
    candidates: tuple[Candidate, ...]
    best: int
    seed: int
    options: SamplingOptions
    given: bool
    seconds: Mapping[str, float]
    full_steps: int
    strengths: tuple[float, ...] | None = None
    ends: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The best candidate's plan."""
        return self.candidates[self.best].plan

    @property
    def pixels(self) -> np.ndarray:
        """The best candidate's image, uint8[h, w, 3]."""
        return self.candidates[self.best].pixels

    @property
    def scored(self) -> bool:
        """Whether scores distinguish the candidates: there are several, each with its own plan."""
        return len(self.candidates) > 1 and len({candidate.score for candidate in self.candidates}) > 1


class Pipeline:
    """A model, its tokenizer and settings, ready to sample from."""

    def __init__(
        self,
        params: Mapping,
        config: ModelConfig,
        tokenizer,
        packing: PackingConfig,
        options: SamplingOptions,
        mesh: Mesh | None = None,
    ):
        """
        Args:
            params: holds `composer` and `vae`.
            packing: as the model was trained: how images are resized, arranged and tokenized.
            mesh: devices to shard over; None: JAX's default device.
        """
        self.params, self._mesh = placed(params, config, mesh), mesh
        self.config, self.tokenizer, self.packing, self.options = config, tokenizer, packing, options
        self.planner = PlanDecoder(config, tokenizer)

    def compose(
        self,
        instruction: str,
        images: Sequence[str | os.PathLike | np.ndarray] = (),
        plan: Plan | None = None,
        candidates: int = 1,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        strengths: Sequence[float] | None = None,
        source: str | os.PathLike | np.ndarray | None = None,
        arrangement: str | None = None,
        **changes,
    ) -> PipelineOutput:
        """Generates one image, or several candidates, after a plan or thought if the options ask for one.

        Args:
            instruction: what to show; refers to the n-th image as `<image n>`, which shows subject n.
            images: files, or arrays uint8[h, w, 3]; at most 12.
            plan: used instead of a generated one. Without `use_planner` it is a thought, without a layout.
            candidates: number of plans and images.
            seed: the same seed gives the same result.
            size: (height, width) of the image in pixels; None: it follows from the options and the images.
            strengths: attention strength of each image in denoising: 1 as trained, 2 as if its tokens were there
                twice, 0 as if they were masked. Text and plan attend to it as trained.
            source: an image to edit; it is then `<image 1>`, and `images` start at `<image 2>`.
            arrangement: of images and text, `in_sentence` or `image_first` (`macro/sentence/prompt.py`); None: as in
                training (`packing.arrangement`).
            **changes: fields of `SamplingOptions` for this call, such as num_timesteps=50.

        Raises:
            UserError: see `prompt.build_sentence`; fewer than one candidate; a size that is no multiple
                of a latent token's; a plan with an absent subject; not one strength per image.
        """
        sentence = build_sentence(instruction, images, size, source)
        return self.compose_sentence(sentence, plan, candidates, seed, strengths, arrangement=arrangement, **changes)

    def compose_sentence(
        self,
        sentence: Sentence,
        plan: Plan | None = None,
        candidates: int = 1,
        seed: int = 0,
        strengths: Sequence[float] | None = None,
        **changes,
    ) -> PipelineOutput:
        """As `compose`, for a sentence whose images are loaded; its target, if any, determines the size.

        The sentence's own plan, if any, is ignored.
        """
        return self.compose_batch([sentence], [plan], candidates, [seed], [strengths], **changes)[0]

    def compose_batch(
        self,
        sentences: Sequence[Sentence],
        plans: Sequence[Plan | None] | None = None,
        candidates: int = 1,
        seeds: Sequence[int] | None = None,
        strengths: Sequence[Sequence[float] | None] | None = None,
        noise: np.ndarray | None = None,
        posterior: Sequence[Sequence[np.ndarray]] | None = None,
        arrangement: str | None = None,
        **changes,
    ) -> list[PipelineOutput]:
        """As `compose_sentence` for a batch of sentences, with any number and sizes of images.

        Up to rounding, each result is that of the sentence alone (except with a threshold step cache).

        Args:
            plans: one per sentence; None: no plans are given.
            seeds: one per sentence; all 0 by default.
            strengths: per sentence as in `compose`, or None.
            noise: [sentences x candidates, n, c] initial noise, instead of that from the seeds.
            posterior: the same for the clean latents of each sentence's images.
            arrangement: as in `compose`.

        Raises:
            UserError: besides those of `compose`: targets of several sizes; noise of another shape; plans for some
                sentences only; an earlier target whose image is not given.
        """
        if not sentences:
            return []
        plans = [None] * len(sentences) if plans is None else list(plans)
        seeds = [0] * len(sentences) if seeds is None else list(seeds)
        strengths = [None] * len(sentences) if strengths is None else list(strengths)
        options = dataclasses.replace(self.options, **changes)
        packing = self.packing if arrangement is None else dataclasses.replace(self.packing, arrangement=arrangement)
        sentences = [arrange(sentence, packing.arrangement) for sentence in sentences]
        if len({plan is None for plan in plans}) > 1:
            raise UserError("plan: given for some sentences only; draw the others in a call of their own")
        if plans[0] is not None and not options.use_planner:
            options = dataclasses.replace(options, think=True)
        sizes = {self._size(sentence, options) for sentence in sentences}
        if len(sizes) > 1:
            raise UserError(f"size: targets of {len(sizes)} sizes, {sorted(sizes)}; draw each in a call of its own")
        for sentence, plan, each in zip(sentences, plans, strengths, strict=True):
            _check(sentence, plan, candidates, each, options)
        with on(self._mesh):
            drawing = _Drawing(self, packing, sentences, candidates, seeds, options, sizes.pop())
            return drawing.run(plans, strengths, noise, posterior)

    def chat(self, seed: int = 0, **changes) -> Chat:
        """Starts a conversation about images, with answers in text (BAGEL's understanding mode).

            chat = pipeline.chat(think=True)
            chat.ask("What is in <image 1>?", ["dog.png"]).answer
            chat.ask("Which breed?").answer

        Args:
            seed: for sampled answers (`do_sample=True`).
            **changes: fields of `SamplingOptions`; those on thinking, text sampling and length of answers apply.
        """
        return Chat(self, dataclasses.replace(self.options, **changes), seed)

    def _size(self, sentence: Sentence, options: SamplingOptions) -> tuple[int, int]:
        """(height, width) of the image to generate."""
        spec, images = self.packing.images, sentence.images
        asked = next((span.size for span in reversed(sentence.spans) if isinstance(span, Target)), None)
        size, aspect = asked or options.image_shapes, options.ratio
        sources = [image for image in images if image.role == "source"]
        like = sources[0] if sources else images[-1] if images and not spec.buckets else None
        if images and options.as_released:
            size, aspect, like = None, None, images[-1]
        like = None if like is None else like.pixels.shape[:2]
        return spec.output_size(like, len(images), size, None if size else aspect)


def _check(sentence: Sentence, plan: Plan | None, candidates: int, strengths, options: SamplingOptions) -> None:
    if candidates < 1:
        raise UserError(f"candidates: {candidates}, but it must be at least 1")
    if plan is not None and plan.grid is not None:
        if not options.use_planner:
            raise UserError(
                "plan: it has a layout, but these settings draw after a thought alone (sampling.use_planner is off); "
                "take the grid out"
            )
        validate_grid(plan.grid, sentence.subjects)
    targets = [span for span in sentence if isinstance(span, Target)]
    if any(target.pixels is None for target in targets[:-1]):
        raise UserError(
            f"sentence: has {len(targets)} targets; only the last is drawn, so the others need their pixels "
            "(draw one after the other, and hand each image on)"
        )
    check_weights(strengths, len(sentence.images))


class _Drawing:
    """The stages of one batch, from sentences to images."""

    def __init__(self, pipeline: Pipeline, packing, sentences, candidates: int, seeds, options: SamplingOptions, size):
        self.pipeline, self.sentences, self.candidates = pipeline, sentences, candidates
        self.seeds, self.options, self.size = seeds, options, size
        self.params, self.config, self.packing = pipeline.params, pipeline.config, packing
        keys = [candidate_keys(seed, candidates) for seed in seeds]
        self.plan_keys, self.noise_keys = (jnp.concatenate(each) for each in zip(*keys, strict=True))
        self.seconds: dict[str, float] = {}

    def run(self, plans: Sequence[Plan | None], strengths, noise, posterior) -> list[PipelineOutput]:
        """Each sentence's result."""
        given = plans[0] is not None
        with timed(self.seconds, "prompt"):
            prompt = self._prompt()
            choice = choice_of(self.options.token_selection, prompt, self.config)
            caches, found = self._read_prompt(prompt, choice, posterior)
        texts = [[None] * self.candidates for _ in plans]
        many = [[plan] * self.candidates for plan in plans]
        if given:
            texts = [[self._ids(plan) for plan in each] for each in many]
        elif self.options.use_planner or self.options.think:
            with timed(self.seconds, "plan"):
                many, texts = self._write(prompt, caches["full"])
        with timed(self.seconds, "read"):
            after = continue_prompt(
                self.sentences, self.size, many, texts, prompt, self.pipeline.tokenizer, self.packing
            )
            read, scores, plan_found = self._read_plans(prompt, choice, caches, after)
        names = {name: names_of(prompt, prompt.contexts[name]) for name in caches}
        if choice is not None:
            with timed(self.seconds, "select"):
                caches, names = drop_tokens(choice, caches, read, found, plan_found, self.seeds)
                jax.block_until_ready(caches)
        cache = gathered(list(caches.values()), len(self.sentences), self.config)
        cache = cache | key_biases(self.sentences, strengths, list(names.values()), cache["k"].shape[2])
        with timed(self.seconds, "draw"):
            latents, full = self._denoise(prompt, after, [cache] if read is None else [cache, read], noise)
        with timed(self.seconds, "decode"):
            pixels = self._decode(latents)
        return self._results(prompt, after, given, sum(many, []), scores, pixels, latents, strengths, full)

    def _prompt(self) -> Prompt:
        options, tokenizer = self.options, self.pipeline.tokenizer
        system = tokenizer.encode(THINK_PROMPT) if options.think else ()
        contexts = options.guidance.contexts
        return prompt_of(self.sentences, contexts, options.policy, tokenizer, self.packing, system)

    def _read_prompt(self, prompt: Prompt, choice: Choice | None, posterior):
        """The caches of the distinct contexts, and the results of the probes."""
        noise = posterior
        if noise is None and (self.options.sample_posterior or self.options.as_released):
            noise = [self._posterior(seed, images) for seed, images in zip(self.seeds, prompt.latents, strict=True)]
        probes = None if choice is None else choice.probes()
        caches, found = read_prompt(self.params, prompt, self.config, noise, probes)
        ends = {name: prompt.contexts[name] for name in prompt.distinct}
        return {name: None if n is None else jax.block_until_ready(caches[n]) for name, n in ends.items()}, found

    def _posterior(self, seed: int, images: Sequence[np.ndarray]) -> list[jax.Array]:
        """Noise for the posterior of each image, derived from the seed."""
        stride, z = self.config.vae.stride, self.config.vae.z
        keys = [jax.random.fold_in(jax.random.key(seed), _POSTERIOR + n) for n in range(len(images))]
        shapes = [(1, image.shape[0] // stride, image.shape[1] // stride, z) for image in images]
        return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def _write(self, prompt: Prompt, cache: Cache | None) -> tuple[list[list[Plan]], list[list[list[int]]]]:
        """Plans or thoughts of each sentence's candidates, and their ids."""
        options, tokenizer, starts = self.options, self.pipeline.tokenizer, prompt.ends["full"]
        given = self.params["composer"], gathered([cache], len(starts), self.config), starts
        if options.use_planner:
            subjects = [sentence.subjects for sentence in self.sentences]
            plans = self.pipeline.planner.write(*given, subjects, self.plan_keys, options.plan)
            return plans, [[self._ids(plan) for plan in each] for each in plans]
        more = {"temperature": options.temperature, "max_tokens": options.max_think_token_n}
        ids = generate(*given, tokenizer, self.plan_keys, config=self.config, **more)
        thoughts = [tokenizer.decode(row) for row in ids]
        plans = [Plan(parse_think(text)) for text in thoughts]
        texts = list(map(tokenizer.encode, thoughts)) if options.as_released else list(map(self._ids, plans))
        n = self.candidates
        return tuple([rows[i : i + n] for i in range(0, len(rows), n)] for rows in (plans, texts))

    def _ids(self, plan: Plan) -> list[int]:
        return plan.tokens(self.pipeline.tokenizer)

    def _read_plans(self, prompt: Prompt, choice: Choice | None, caches: Mapping[str, Any], after: Continuation):
        """The cache of the plans (None without plans), their scores, and the result of the probe."""
        if not after.plan:
            return None, [None] * len(self.noise_keys), None
        read, scores, found = read_plans(
            self.params["composer"],
            gathered(list(caches.values()), prompt.sentences, self.config),
            after.plan,
            None if choice is None else choice.plan_probe(after, self.candidates),
            config=self.config,
            contexts=len(caches),
            kept=after.kept,
            candidates=self.candidates,
        )
        return read, np.asarray(scores).tolist(), found

    def _denoise(self, prompt: Prompt, after: Continuation, caches, noise) -> tuple[jax.Array, int]:
        """Latent tokens of every image, and the number of steps that ran the layers."""
        options, distinct = self.options, prompt.distinct
        needed = len(self.noise_keys), after.latent["position"].shape[1], self.config.latent_channels
        if noise is None:
            noise = noise_of(self.noise_keys, *needed[1:])
        elif noise.shape != needed:
            height, width = self.size
            raise UserError(f"noise: {noise.shape}, but images of {height} x {width} need {needed}")
        latents, full = denoise(
            self.params["composer"],
            caches,
            after.frame,
            after.latent,
            jnp.asarray(noise),
            sampling_times(options.steps + 1, options.timestep_shift),
            config=self.config,
            guidance=options.guidance,
            same=tuple(distinct.index(prompt.same[name]) for name in options.guidance.contexts),
            step_cache=options.step_cache,
        )
        return jax.block_until_ready(latents), int(full)

    def _decode(self, latents: jax.Array) -> list[np.ndarray]:
        rows, columns = (side // self.config.pixels_per_token for side in self.size)
        values = decode_images(self.params["vae"], latents, rows=rows, columns=columns, config=self.config)
        return list(_truncated(values) if self.options.as_released else to_uint8(values))

    def _results(self, prompt, after, given, plans, scores, pixels, latents, strengths, full) -> list[PipelineOutput]:
        rows = zip(plans, pixels, scores, np.asarray(latents), strict=True)
        made = [Candidate(plan or Plan(""), *rest) for plan, *rest in rows]
        results = []
        for n, (sentence, seed, each) in enumerate(zip(self.sentences, self.seeds, strengths, strict=True)):
            mine = tuple(made[n * self.candidates : (n + 1) * self.candidates])
            best = 0 if mine[0].score is None else int(np.argmax([candidate.score for candidate in mine]))
            ends = {name: after.ends[name][n] for name in prompt.contexts}
            ends = {name: (end.token_index, end.position_id) for name, end in ends.items()}
            how = self.options, given, self.seconds, full, None if each is None else tuple(each), ends
            results.append(PipelineOutput(_sized(sentence, self.size), mine, best, seed, *how))
        return results


def _sized(sentence: Sentence, size: tuple[int, int]) -> Sentence:
    """A copy whose last target has this size; a target is added if there is none."""
    spans = list(sentence.spans)
    places = [n for n, span in enumerate(spans) if isinstance(span, Target)]
    if not places:
        return sentence.replace(spans=(*spans, Target(size=size)))
    if spans[places[-1]].size != size:
        spans[places[-1]] = Target(size=size)
    return sentence.replace(spans=tuple(spans))


def _truncated(values: jax.Array | np.ndarray) -> np.ndarray:
    """Scales -1..1 to 0..255, dropping the fraction as the released code does."""
    return (np.clip(np.asarray(values, np.float32) * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Records the duration of the block under `stage`."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
