"""Understanding: text out, several turns, against the model's own next tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy_bagel import CONFIG, FIRST, OPTIONS, PACKING, PIPELINE, SECOND, Tokenizer

from macro.inputs.packing import pack_sentence
from macro.models.composer import Composer
from macro.sampling.chat import THINK_PROMPT
from macro.sampling.pipeline import Pipeline
from macro.sentence.spans import Image, Sentence, Text
from macro.utils.errors import UserError


class Lossless(Tokenizer):
    """Whatever id a random model writes, its text has it too."""

    def encode(self, text: str) -> list[int]:
        if text and ord(text[0]) >= 0x4E00:
            return [ord(letter) - 0x4E00 for letter in text]
        return super().encode(text)

    def decode(self, ids) -> str:
        return "".join(chr(0x4E00 + i) for i in ids)


TOKENIZER = Lossless()
TALKING = Pipeline(PIPELINE.params, CONFIG, TOKENIZER, PACKING, OPTIONS)


@pytest.fixture(scope="module")
def chat():
    chat = TALKING.chat(max_think_token_n=7)
    chat.ask("what is <image 1>", [FIRST])
    chat.ask("and <image 1>", [SECOND])
    return chat


def _likeliest(spans) -> list[int]:
    """The likeliest token after each token of the last text, all read in one pass without a cache, as in training."""
    packing = dataclasses.replace(TALKING.packing, reference_vae=False)
    packed = pack_sentence(Sentence(tuple(spans)), TOKENIZER, packing)
    streams = {"text": packed.text, "vision": packed.vision}
    streams = {
        name: fields | {"segment_ids": np.zeros(len(fields["token_index"]), np.int32)}
        for name, fields in streams.items()
    }
    streams = jax.tree.map(lambda x: jnp.asarray(x)[None], streams)
    params = {"params": TALKING.params["composer"]}
    hidden, *_ = Composer(CONFIG).apply(params, streams, method=Composer.prefill)
    best = jnp.argmax(Composer(CONFIG).apply(params, hidden, method=Composer.logits), axis=-1)[0]
    return best[-len(TOKENIZER.encode(spans[-1].text)) - 2 :].tolist()


def test_each_answer_is_the_likeliest_text_after_all_before_it(chat):
    first, second = chat.turns
    read = [Text("what is "), Image(FIRST), Text(first.text)]
    after = [*read, Text("and "), Image(SECOND), Text(second.text)]
    for turn, spans in ((first, read), (second, after)):
        ids = TOKENIZER.encode(turn.text)
        assert 0 < len(ids) <= 6 and _likeliest(spans)[: len(ids)] == ids
        assert turn.answer == turn.text and turn.thought == ""
    assert first.text != second.text


def test_a_conversation_can_be_repeated(chat):
    again = TALKING.chat(max_think_token_n=7)
    assert again.ask("what is <image 1>", [FIRST]) == chat.turns[0]
    other = TALKING.chat(seed=1, max_think_token_n=7, do_sample=True, text_temperature=5.0)
    assert other.ask("what is <image 1>", [FIRST]) != chat.turns[0]


def test_thinking_begins_with_the_system_prompt(monkeypatch):
    asked = TALKING.chat(think=True, max_think_token_n=4)
    assert asked._unread[0].ids == [TOKENIZER.bos, *TOKENIZER.encode(THINK_PROMPT), TOKENIZER.eos]
    monkeypatch.setattr(TOKENIZER.__class__, "decode", lambda self, ids: "<think>so</think>\nthis")
    turn = asked.ask("what")
    assert (turn.thought, turn.answer) == ("so", "this")


def test_mistakes_are_named():
    with pytest.raises(UserError, match="<image 2>"):
        TALKING.chat().ask("what is <image 2>", [FIRST])
