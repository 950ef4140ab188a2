"""Questions about images, answered in text: BAGEL's understanding mode, over several turns.

    turn = [image as the ViT sees it] ... [bos] question [eos]   ->   [bos] answer [eos]

There is no chat template: turns follow one another, and images have no VAE copies, as in BAGEL's
`InterleaveInferencer(understanding_output=True)`. With `think` a system prompt asks for a thought, which then precedes
the answer. Each turn is prefilled once and stays in the KV cache. Read next: `macro/sampling/plan_decoding.py`.
"""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from macro.inputs.conditioning import ConditionMask
from macro.inputs.tokenize_example import PositionState, TextSegment, VaeSegment, to_segments
from macro.models.composer import Cache
from macro.sampling.contexts import make_prompt
from macro.sampling.options import SamplingOptions
from macro.sampling.placement import on
from macro.sampling.plan_decoding import generate
from macro.sampling.prefill import gathered, read_prompt
from macro.sentence.plan import END_THINK, THINK, parse_think
from macro.sentence.prompt import arrange, build_sentence

# The system prompt for understanding in BAGEL's `inferencer.py` (`VLM_THINK_SYSTEM_PROMPT`), with the space before the
# line break. It is a text of its own before everything else; in a conversation it comes once, at the start [ours].
THINK_PROMPT = (
    "You should first think about the reasoning process in the mind and then provide the user with the answer. \n"
    "The reasoning process is enclosed within <think> </think> tags, i.e. "
    "<think> reasoning process here </think> answer here"
)


@dataclasses.dataclass(frozen=True)
class Turn:
    """A question and the model's output.

    Attributes:
        question: as given.
        thought: the text between `<think>` and `</think>`; "" without one.
        answer: the text after it.
        text: the whole output.
    """

    question: str
    thought: str
    answer: str
    text: str


class Chat:
    """A conversation; `Pipeline.chat` starts one."""

    def __init__(self, pipeline, options: SamplingOptions, seed: int = 0):
        self._pipeline, self._options, self._seed = pipeline, options, seed
        self._cache: Cache | None = None
        self._end, self._unread = PositionState(), []
        self.turns: list[Turn] = []
        if options.think:
            self._unread.append(self._text(THINK_PROMPT))

    def ask(self, question: str, images: Sequence[str | os.PathLike | np.ndarray] = ()) -> Turn:
        """The model's answer to a question, given all turns before it.

        Args:
            question: refers to the n-th of `images` as `<image n>`; images that it does not mention come first.
            images: files, or arrays uint8[h, w, 3]; at most 12.

        Raises:
            UserError: see `prompt.build_sentence`.
        """
        pipeline, options = self._pipeline, self._options
        sentence = arrange(build_sentence(question, images, None), pipeline.packing.arrangement)
        pieces = to_segments(sentence, pipeline.tokenizer, pipeline.packing, ConditionMask(), None)
        self._unread += [piece for piece in pieces if not isinstance(piece, VaeSegment)]
        with on(pipeline._mesh):
            self._read()
            key = jax.random.fold_in(jax.random.key(self._seed), len(self.turns))
            (ids,) = generate(
                pipeline.params["composer"],
                gathered([self._cache], 1, pipeline.config),
                [self._end],
                pipeline.tokenizer,
                key[None],
                config=pipeline.config,
                temperature=options.temperature,
                max_tokens=options.max_think_token_n,
            )
        text = pipeline.tokenizer.decode(ids)
        self._unread = [self._text(text)]
        thought, answer = "", text
        if text.lstrip().startswith(THINK):
            thought, answer = parse_think(text), text.partition(END_THINK)[2].strip()
        self.turns.append(Turn(question, thought, answer, text))
        return self.turns[-1]

    def _read(self) -> None:
        """Prefills the last answer and all text and images since, extending the cache."""
        pipeline = self._pipeline
        prompt = make_prompt([{"full": self._unread}], (), pipeline.tokenizer, pipeline.packing, (self._end,))
        caches, _ = read_prompt(pipeline.params, prompt, pipeline.config, before=self._cache)
        self._cache, self._end, self._unread = caches[-1], prompt.ends["full"][0], []

    def _text(self, text: str) -> TextSegment:
        tokenizer = self._pipeline.tokenizer
        return TextSegment([tokenizer.bos, *tokenizer.encode(text), tokenizer.eos], False)
