"""The whole way from a sentence with pictures to a plan and a picture.

    pipeline = macro.load("demo")
    result = pipeline.compose("<image 1> leans on <image 2>.", ["dog.png", "lamp.jpg"], candidates=4)
    result.plan, result.pixels

    sentences --prefill--> a cache per context --write--> plans --read--> caches --select--> fewer tokens
        --draw--> latents --> pictures

Everything random follows from (seed, candidate); with `TeaCache` (`macro/diffusion/step_cache.py`) which steps are
skipped depends on all rows of a batch. Programs are compiled per buffer size (`contexts.capacity`),
so the first call of a size is slow and the rest are not.
Read next: `macro/sampling/contexts.py`, `plan.py`, `select.py`, `draw.py`, in this order.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from macro.diffusion.flow import sampling_times
from macro.inputs.packing import PackingConfig
from macro.inputs.transforms import drawn_size
from macro.models.composer import image_ids, index_cache
from macro.models.variants import ModelConfig
from macro.sampling.candidates import Candidate, pick
from macro.sampling.contexts import Continuation, Prompt, continue_prompt, read_prompt
from macro.sampling.draw import candidate_keys, decode_pictures, draw, noise_of
from macro.sampling.placement import on, placed
from macro.sampling.plan import prefill, read, write
from macro.sampling.rules import plan_rules, rules_of_rows
from macro.sampling.select import Choice, choice_of, selected
from macro.sampling.settings import Settings
from macro.sampling.strengths import by_span, check_strengths, log_strengths
from macro.sentence.formats import compose_sentence
from macro.sentence.layout import validate_grid
from macro.sentence.plan import Plan
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError
from macro.utils.images import to_uint8


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """What `Pipeline.compose` returns.

    Attributes:
        sentence: what was asked for.
        candidates: every plan and picture.
        best: number of the one picked.
        seed, settings, strengths: how to get it again.
        given: whether the plan was handed in.
        seconds: time of each stage; the first call of a size includes compiling.
        full_steps: how many of the steps ran the layers (`settings.reuse`).
    """

    sentence: Sentence
    candidates: tuple[Candidate, ...]
    best: int
    seed: int
    settings: Settings
    given: bool
    seconds: Mapping[str, float]
    full_steps: int
    strengths: tuple[float, ...] | None = None

    @property
    def plan(self) -> Plan:
        """The picked candidate's plan."""
        return self.candidates[self.best].plan

    @property
    def pixels(self) -> np.ndarray:
        """The picked candidate's picture, uint8[h, w, 3]."""
        return self.candidates[self.best].pixels


class Pipeline:
    """A model with all that sampling needs."""

    def __init__(
        self,
        params: Mapping,
        config: ModelConfig,
        tokenizer,
        packing: PackingConfig,
        settings: Settings,
        mesh: Mesh | None = None,
    ):
        """
        Args:
            params: holds `composer` and `vae`.
            packing: the one trained with, for its sizes.
            mesh: of devices that share the work; None: the one that JAX takes.
        """
        self.params, self._mesh = placed(params, config, mesh), mesh
        self.config, self.tokenizer, self.packing, self.settings = config, tokenizer, packing, settings
        self._rules: dict[int, dict] = {}

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
        **changes,
    ) -> Composition:
        """Plans and draws one picture, or several to pick from.

        Args:
            instruction: what to show; names the n-th picture as `<image n>`, which shows subject n.
            images: files, or arrays uint8[h, w, 3]; at most 12.
            plan: drawn instead of one that the model writes (if its settings are `planned`).
            candidates: how many plans and pictures.
            seed: the same seed gives the same result.
            size: (height, width) of the picture; as trained if left out (an edit: that of the source's shape).
            strengths: how much each picture counts in drawing, one number per picture: 1 as trained, 2 as if its
                tokens were there twice, 0 as if they were not seen. What words and plan have read of it stays.
            source: a picture to edit; it is then `<image 1>`, and `images` go on from `<image 2>`.
            **changes: fields of `Settings` for this call, such as steps=50.

        Raises:
            UserError: see `formats.compose_sentence`; fewer than one candidate; a size that latent tokens do
                not cover exactly; a plan that names an absent subject; strengths of another number than the pictures.
        """
        sentence = compose_sentence(instruction, images, size or drawn_size(self.packing.buckets, source), source)
        return self.compose_sentence(sentence, plan, candidates, seed, strengths, **changes)

    def compose_sentence(
        self,
        sentence: Sentence,
        plan: Plan | None = None,
        candidates: int = 1,
        seed: int = 0,
        strengths: Sequence[float] | None = None,
        **changes,
    ) -> Composition:
        """As `compose`, for a sentence whose pictures are loaded and whose target has a size.

        The sentence's own plan, if it has one, is not looked at.
        """
        return self.compose_batch([sentence], [plan], candidates, [seed], [strengths], **changes)[0]

    def compose_batch(
        self,
        sentences: Sequence[Sentence],
        plans: Sequence[Plan | None] | None = None,
        candidates: int = 1,
        seeds: Sequence[int] | None = None,
        strengths: Sequence[Sequence[float] | None] | None = None,
        **changes,
    ) -> list[Composition]:
        """As `compose_sentence` for several sentences side by side, whatever the number and sizes of their pictures.

        Each result is, up to rounding, the one that it would be alone (but for settings whose `reuse` is a threshold).

        Args:
            plans: one for each sentence or for none.
            seeds: one for each sentence; all 0 if left out.
            strengths: as `compose` has them, or None, for each sentence.

        Raises:
            UserError: besides those of `compose`, targets of several sizes, or plans for some sentences only.
        """
        plans = [None] * len(sentences) if plans is None else list(plans)
        seeds = [0] * len(sentences) if seeds is None else list(seeds)
        strengths = [None] * len(sentences) if strengths is None else list(strengths)
        for sentence, plan, each in zip(sentences, plans, strengths, strict=True):
            self._check(sentence, plan, candidates, each)
        sizes = {sentence.target.size for sentence in sentences}
        if len(sizes) > 1:
            raise UserError(f"size: targets of {len(sizes)} sizes, {sorted(sizes)}; draw each in a call of its own")
        if len({plan is None for plan in plans}) > 1:
            raise UserError("plan: given for some sentences only; draw the others in a call of their own")
        settings = dataclasses.replace(self.settings, **changes)
        with on(self._mesh):
            made, seconds, full = _Drawing(self, sentences, candidates, seeds, settings).make(plans, strengths)
        results = []
        for sentence, plan, seed, strength, each in zip(sentences, plans, seeds, strengths, made, strict=True):
            how = seed, settings, plan is not None, seconds, full, None if strength is None else tuple(strength)
            results.append(Composition(sentence, each, pick(each), *how))
        return results

    def _check(
        self, sentence: Sentence, plan: Plan | None, candidates: int, strengths: Sequence[float] | None
    ) -> None:
        if candidates < 1:
            raise UserError(f"candidates: {candidates}, but it must be at least 1")
        stride, most = self.packing.latent_stride, self.packing.latent_stride * self.packing.latent_side
        if any(side % stride or not 0 < side <= most for side in sentence.target.size):
            height, width = sentence.target.size
            raise UserError(f"size: {height}x{width}; both sides must be multiples of {stride}, up to {most}")
        if plan is not None and plan.grid is not None:
            validate_grid(plan.grid, sentence.subjects)
        check_strengths(strengths, len(sentence.images))

    def rules_for(self, subjects: int) -> dict:
        """What a plan with so many subjects may be (`rules.plan_rules`)."""
        if subjects not in self._rules:
            self._rules[subjects] = plan_rules(self.tokenizer, self.config.llm.vocab, subjects)
        return self._rules[subjects]


class _Drawing:
    """One batch on its way from sentences to pictures."""

    def __init__(self, pipeline: Pipeline, sentences, candidates: int, seeds: Sequence[int], settings: Settings):
        self.pipeline, self.sentences, self.candidates, self.settings = pipeline, sentences, candidates, settings
        self.params, self.config = pipeline.params, pipeline.config
        keys = [candidate_keys(seed, candidates) for seed in seeds]
        self.plan_keys, self.noise_keys = (jnp.concatenate(each) for each in zip(*keys, strict=True))
        self.seeds = seeds
        self.seconds: dict[str, float] = {}

    def make(
        self, plans: Sequence[Plan | None], strengths: Sequence[Sequence[float] | None]
    ) -> tuple[list[tuple[Candidate, ...]], dict[str, float], int]:
        """Each sentence's candidates, the time of each stage, and how many steps ran the layers."""
        seconds = self.seconds
        with timed(seconds, "prompt"):
            prompt, choice, cache, asked = self._read_prompt()
        many = [[plan] * self.candidates for plan in plans]
        if plans[0] is None and self.settings.planned:
            with timed(seconds, "plan"):
                many = self._write_plans(prompt, cache)
        with timed(seconds, "read"):
            after, read_plans, scores, asked_again = self._read_plans(prompt, choice, cache, many)
        cache = cache | _biases(self.sentences, prompt, strengths)
        if choice is not None:
            with timed(seconds, "select"):
                cache = selected(choice, cache, read_plans, [asked, asked_again], self.seeds)
                jax.block_until_ready(cache)
        with timed(seconds, "draw"):
            tokens, full = self._draw(after, [cache] if read_plans is None else [cache, read_plans])
        with timed(seconds, "decode"):
            pictures = self._decode(tokens, self.sentences[0].target.size)
        made = [Candidate(plan or Plan(""), *rest) for plan, *rest in zip(sum(many, []), pictures, scores, strict=True)]
        each = [tuple(made[n : n + self.candidates]) for n in range(0, len(made), self.candidates)]
        return each, seconds, full

    def _read_prompt(self):
        """The prompts, which tokens of them are to be chosen, their cache, and what was asked."""
        settings, pipeline = self.settings, self.pipeline
        prompt = read_prompt(self.sentences, settings.guidance.contexts, pipeline.tokenizer, pipeline.packing)
        choice = choice_of(settings.select, prompt, self.config)
        asking = None if choice is None else choice.of_prompt()
        given = self.params["composer"], self.params["vae"], prompt.streams, prompt.pixels, asking
        cache, asked = prefill(*given, config=self.config)
        return prompt, choice, jax.block_until_ready(cache), asked

    def _write_plans(self, prompt: Prompt, cache) -> list[list[Plan]]:
        rules = [self.pipeline.rules_for(sentence.subjects) for sentence in self.sentences]
        ids, lengths, _ = write(
            self.params["composer"],
            index_cache(cache, slice(prompt.sentences)),
            prompt.ends[: prompt.sentences],
            rules_of_rows(rules, self.candidates),
            self.plan_keys,
            config=self.config,
            writing=self.settings.writing,
        )
        rows = zip(np.asarray(ids).tolist(), np.asarray(lengths).tolist(), strict=True)
        plans = [Plan.from_tokens(row[:length], self.pipeline.tokenizer) for row, length in rows]
        return [plans[n : n + self.candidates] for n in range(0, len(plans), self.candidates)]

    def _read_plans(self, prompt: Prompt, choice: Choice | None, cache, plans):
        """What follows the prompts, the plans' cache (None without plans) and scores, and what was asked."""
        pipeline = self.pipeline
        after = continue_prompt(self.sentences, plans, prompt, pipeline.tokenizer, pipeline.packing)
        if not after.plan:
            return after, None, [0.0] * len(self.noise_keys), None
        read_plans, scores, asked = read(
            self.params["composer"],
            cache,
            after.plan,
            None if choice is None else choice.of_plan(after, self.candidates),
            config=self.config,
            contexts=len(prompt.contexts),
            kept=after.kept,
            candidates=self.candidates,
        )
        return after, read_plans, np.asarray(scores).tolist(), asked

    def _draw(self, after: Continuation, caches: Sequence) -> tuple[jax.Array, int]:
        tokens, full = draw(
            self.params["composer"],
            caches,
            after.frame,
            after.latent,
            noise_of(self.noise_keys, after.latent["position"].shape[1], self.config.latent_channels),
            sampling_times(self.settings.steps + 1, self.settings.shift),
            config=self.config,
            guidance=self.settings.guidance,
            reuse=self.settings.reuse,
        )
        return jax.block_until_ready(tokens), int(full)

    def _decode(self, tokens: jax.Array, size: tuple[int, int]) -> list[np.ndarray]:
        rows, columns = (side // self.pipeline.packing.latent_stride for side in size)
        pictures = decode_pictures(self.params["vae"], tokens, rows=rows, columns=columns, config=self.config)
        return list(to_uint8(pictures))


def _biases(sentences: Sequence[Sentence], prompt: Prompt, strengths: Sequence[Sequence[float] | None]) -> dict:
    """`bias` of the keys of a prompt's cache: the logarithm of their picture's strength; nothing where all are 1."""
    if all(each is None or set(each) <= {1} for each in strengths):
        return {}
    picture = np.asarray(image_ids(prompt.streams))
    bias = np.zeros(picture.shape, np.float32)
    for row in range(len(picture)):
        number = row % len(sentences)
        if strengths[number] is None:
            continue
        bias[row] = log_strengths(by_span(sentences[number], strengths[number]))[picture[row]]
    return {"bias": jnp.asarray(bias)}


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes how long the block took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
