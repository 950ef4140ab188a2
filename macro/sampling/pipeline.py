"""The whole way from a sentence with pictures to a plan and a picture.

    pipeline = macro.load("demo")
    result = pipeline.compose("<image 1> leans on <image 2>.", ["dog.png", "lamp.jpg"], candidates=4)
    result.plan, result.pixels

    sentence --prefill--> a cache per context --write--> plans --read--> caches --draw--> latents --> pictures

Everything random follows from (seed, candidate). Programs are compiled per buffer size (`contexts.capacity`),
so the first call of a size is slow and the rest are not.
Read next: `macro/sampling/contexts.py`, `plan.py`, `draw.py`, in this order.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.sharding import Mesh

from macro.diffusion.times import sampling_times
from macro.inputs.packing import PackingConfig
from macro.models.variants import ModelConfig
from macro.sampling.candidates import Candidate, pick
from macro.sampling.contexts import Prompt, continue_prompt, read_prompt
from macro.sampling.draw import candidate_keys, decode_pictures, draw, noise_of
from macro.sampling.placement import on, placed
from macro.sampling.plan import prefill, read, repeated, write
from macro.sampling.rules import plan_rules
from macro.sampling.settings import Settings
from macro.sentence.formats import compose_sentence
from macro.sentence.grid import validate_grid
from macro.sentence.plan import Plan
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError
from macro.utils.image import to_uint8


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """What `Pipeline.compose` returns.

    Attributes:
        sentence: what was asked for.
        candidates: every plan and picture.
        best: number of the one picked.
        seed, settings: how to get it again.
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
        **changes,
    ) -> Composition:
        """Plans and draws one picture, or several to pick from.

        Args:
            instruction: what to show; names the n-th picture as `<image n>`, which shows subject n.
            images: files, or arrays uint8[h, w, 3]; at most 12.
            plan: drawn instead of one that the model writes (if its settings are `planned`).
            candidates: how many plans and pictures.
            seed: the same seed gives the same result.
            size: (height, width) of the picture; as trained if left out.
            **changes: fields of `Settings` for this call, such as steps=50.

        Raises:
            UserError: see `formats.compose_sentence`; fewer than one candidate; a size that latent tokens do
                not cover exactly; a plan that names an absent subject.
        """
        sentence = compose_sentence(instruction, images, size or self.packing.buckets[0][:2])
        return self.compose_sentence(sentence, plan, candidates, seed, **changes)

    def compose_sentence(
        self, sentence: Sentence, plan: Plan | None = None, candidates: int = 1, seed: int = 0, **changes
    ) -> Composition:
        """As `compose`, for a sentence whose pictures are loaded and whose target has a size.

        The sentence's own plan, if it has one, is not looked at.
        """
        self._check(sentence, plan, candidates)
        settings = dataclasses.replace(self.settings, **changes)
        with on(self._mesh):
            plans, pictures, scores, seconds, full = self._stages(sentence, plan, candidates, seed, settings)
        made = tuple(map(Candidate, (plan or Plan("") for plan in plans), pictures, scores))
        return Composition(sentence, made, pick(made), seed, settings, plan is not None, seconds, full)

    def _stages(self, sentence: Sentence, plan: Plan | None, candidates: int, seed: int, settings: Settings):
        """Plans, pictures and the plans' scores of every candidate; time of each stage, number of full steps."""
        plan_keys, noise_keys = candidate_keys(seed, candidates)
        seconds: dict[str, float] = {}
        with timed(seconds, "prompt"):
            prompt, cache = self._read_prompt(sentence, settings)
        plans = [plan] * candidates
        if plan is None and settings.planned:
            with timed(seconds, "plan"):
                plans = self._write_plans(sentence, prompt, cache, plan_keys, settings)
        with timed(seconds, "draw"):
            tokens, scores, full = self._draw(sentence, prompt, cache, plans, noise_keys, settings)
        with timed(seconds, "decode"):
            pictures = self._decode(tokens, sentence.target.size)
        return plans, pictures, scores, seconds, full

    def _check(self, sentence: Sentence, plan: Plan | None, candidates: int) -> None:
        if candidates < 1:
            raise UserError(f"candidates: {candidates}, but it must be at least 1")
        stride, most = self.packing.latent_stride, self.packing.latent_stride * self.packing.latent_side
        if any(side % stride or not 0 < side <= most for side in sentence.target.size):
            height, width = sentence.target.size
            raise UserError(f"size: {height}x{width}; both sides must be multiples of {stride}, up to {most}")
        if plan is not None and plan.grid is not None:
            validate_grid(plan.grid, sentence.subjects)

    def _read_prompt(self, sentence: Sentence, settings: Settings) -> tuple[Prompt, dict]:
        prompt = read_prompt(sentence, settings.guidance.contexts, self.tokenizer, self.packing)
        cache = prefill(
            self.params["composer"], self.params["vae"], prompt.streams, prompt.pixels, config=self.config
        )
        return prompt, jax.block_until_ready(cache)

    def _write_plans(self, sentence, prompt, cache, keys, settings) -> list[Plan]:
        full = {name: cache[name][:, :1] for name in ("k", "v")}
        full["meta"] = {name: values[:1] for name, values in cache["meta"].items()}
        ids, lengths, _ = write(
            self.params["composer"],
            full,
            prompt.ends[0],
            self._rules_for(sentence.subjects),
            keys,
            config=self.config,
            writing=settings.writing,
        )
        rows = zip(np.asarray(ids).tolist(), np.asarray(lengths).tolist(), strict=True)
        return [Plan.from_tokens(row[:length], self.tokenizer) for row, length in rows]

    def _rules_for(self, subjects: int) -> dict:
        if subjects not in self._rules:
            self._rules[subjects] = plan_rules(self.tokenizer, self.config.llm.vocab, subjects)
        return self._rules[subjects]

    def _draw(self, sentence, prompt, cache, plans, keys, settings) -> tuple[jax.Array, list[float], int]:
        after = continue_prompt(sentence, plans, prompt, self.tokenizer, self.packing)
        if after.plan:
            caches, scores = read(
                self.params["composer"],
                cache,
                after.plan,
                config=self.config,
                kept=after.kept,
                candidates=len(plans),
            )
        else:
            caches, scores = repeated(cache, len(plans)), np.zeros(len(plans))
        tokens, full = draw(
            self.params["composer"],
            caches,
            after.frame,
            after.latent,
            noise_of(keys, after.latent["position"].shape[1], self.config.latent_channels),
            sampling_times(settings.steps + 1, settings.shift),
            config=self.config,
            guidance=settings.guidance,
            reuse=settings.reuse,
        )
        return jax.block_until_ready(tokens), np.asarray(scores).tolist(), int(full)

    def _decode(self, tokens: jax.Array, size: tuple[int, int]) -> list[np.ndarray]:
        rows, columns = (side // self.packing.latent_stride for side in size)
        pictures = decode_pictures(self.params["vae"], tokens, rows=rows, columns=columns, config=self.config)
        return list(to_uint8(pictures))


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds how long the block took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
