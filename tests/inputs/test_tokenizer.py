"""Any text comes back; special ids stay apart from what a prompt may spell; Qwen's file layout."""

import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from macro.inputs.tokenizer import FRAMES, LAYOUT_MARKS, Tokenizer
from macro.sentence.plan import Plan, PlanTokenizer
from macro.utils.errors import UserError

DEMO = Tokenizer.demo()
SPECIAL = {
    DEMO.bos, DEMO.eos, DEMO.image_start, DEMO.image_end, DEMO.layout_start, DEMO.layout_end, *DEMO.cells
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    ids = DEMO.encode(text)
    assert DEMO.decode(ids) == text and not SPECIAL & set(ids)


@pytest.mark.parametrize(
    "text", [*FRAMES, *LAYOUT_MARKS, "<image 3>", "<think>", " a  b\n\tc ", "e\u0301 ﬁ 漢字 🎉\x00"]
)
def test_what_a_prompt_spells_is_text(text):
    ids = DEMO.encode(text)
    assert DEMO.decode(ids) == text and not SPECIAL & set(ids)


def test_special_ids_are_19_and_leave_no_trace():
    assert len(SPECIAL) == 19 and max(SPECIAL) < DEMO.vocab_size and isinstance(DEMO, PlanTokenizer)
    assert DEMO.decode([DEMO.bos, *DEMO.encode("the dog"), DEMO.cells[3], DEMO.eos]) == "the dog"


def test_the_scenes_own_wording_takes_about_a_token_a_word():
    text = "the dog stands left of the tree and behind the car. on green grass under a blue sky."
    assert len(DEMO.encode(text)) <= 1.3 * len(text.replace(".", " .").split())


def test_plans_round_trip_through_tokens():
    plan = Plan("the dog: left. ünusual 漢", np.arange(64, dtype=np.int8).reshape(8, 8) % 13)
    assert Plan.from_tokens([DEMO.bos, *plan.tokens(DEMO), DEMO.eos], DEMO) == plan


def test_worker_processes_get_the_same_tokenizer():
    sent = pickle.loads(pickle.dumps(DEMO))
    text = "the <|im_end|> dog"
    assert sent.encode(text) == DEMO.encode(text) and sent.cells == DEMO.cells


def qwen_like(path, base=400):
    """A small file of Qwen2.5's layout: byte-level BPE, special and ordinary added tokens behind a gap."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.normalizer = tokenizers.normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=base, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([f"word{i} left right of the" for i in range(200)], trainer)
    names = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
    ]
    bpe.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in names])
    bpe.add_tokens([tokenizers.AddedToken("<tool_call>", special=False)])
    bpe.save(str(path))
    return bpe


def test_file_of_qwens_layout(tmp_path):
    bpe = qwen_like(tmp_path / "tokenizer.json")
    end = bpe.get_vocab_size()
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json", layout=end + 10)
    assert tokenizer.bos == bpe.token_to_id("<|im_start|>") and tokenizer.eos == tokenizer.bos + 1
    assert tokenizer.image_start + 1 == tokenizer.image_end == bpe.token_to_id("<|vision_end|>")
    assert (tokenizer.layout_start, tokenizer.layout_end) == (end + 10, end + 11)
    assert tokenizer.cells == list(range(end + 12, end + 25)) and tokenizer.vocab_size == end + 25
    text = "word7 <|im_end|> <tool_call> left"
    assert tokenizer.decode(tokenizer.encode(text)) == text and tokenizer.eos not in tokenizer.encode(text)
    assert tokenizer.decode([tokenizer.layout_start, *tokenizer.encode("left")]) == "left"
    assert (
        Tokenizer.from_file(tmp_path / "tokenizer.json").layout_start == 151665
    )  # Qwen2.5's first unused id


def test_layout_ids_that_are_taken(tmp_path):
    bpe = qwen_like(tmp_path / "tokenizer.json")
    taken = bpe.token_to_id("<tool_call>")
    with pytest.raises(UserError, match=f"layout id {taken} is already '<tool_call>'"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", layout=taken)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Tokenizer.from_file(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="other.json"):
        Tokenizer.from_file(tmp_path / "other.json")
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.save(str(tmp_path / "bare.json"))
    with pytest.raises(UserError, match=r"has no token <\|im_start\|>"):
        Tokenizer.from_file(tmp_path / "bare.json")


def test_training_is_repeatable(tmp_path):
    texts = ["the dog stands left of the tree", "the tree and the car"] * 3
    for name in ("a", "b"):
        Tokenizer.train(texts, 300).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Tokenizer.from_file(tmp_path / "a").vocab_size <= 300
