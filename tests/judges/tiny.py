"""Tiny Qwen3 and Qwen2.5-VL of the real classes, saved as folders that the usual loaders read.

Their weights are random, or `scripted`: attention and MLP add nothing, embeddings are one-hot, and the head maps each
token to those that may follow it. Such a model says what a test wants, through all of the real code.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
          "<|video_pad|>")  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a byte, the marks, and `words` as whole tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate((*alphabet, *_MARKS))}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(_MARKS),
        chat_template=_TEMPLATE,
    )
    tokenizer.add_tokens(list(words))
    return tokenizer


def build(folder: Path, sees: bool, script: Mapping[str, Sequence[str]] | None = None) -> str:
    """A model in a folder. `script`: token -> those that may follow it, equally likely; None leaves it random."""
    words = [word for follow in (script or {}).values() for word in follow if word != "<|im_end|>"]
    tokenizer = _tokenizer(dict.fromkeys(words))
    tokenizer.save_pretrained(folder)
    width = 320 if script is not None else 32
    torch.manual_seed(0)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "tie_word_embeddings": False, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
    }  # fmt: skip
    model = _vl(folder, tokenizer, text, width) if sees else Qwen3ForCausalLM(Qwen3Config(head_dim=16, **text))
    if script is not None:
        _follow(model, tokenizer, script)
    else:
        _make_attentive(model)
    model.save_pretrained(folder)
    return str(folder)


def _vl(folder: Path, tokenizer: PreTrainedTokenizerFast, text: dict, width: int) -> Qwen2_5_VLForConditionalGeneration:
    mark = tokenizer.convert_tokens_to_ids
    sections = [width // 4 - 2 * (width // 16), width // 16, width // 16]  # of a head's half, time, height and width
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e4}},
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": width,
            "fullatt_block_indexes": [0], "window_size": 56,
        },
        image_token_id=mark("<|image_pad|>"),
        video_token_id=mark("<|video_pad|>"),
        vision_start_token_id=mark("<|vision_start|>"),
        vision_end_token_id=mark("<|vision_end|>"),
    )  # fmt: skip
    seen = {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        "size": {"shortest_edge": 28 * 28, "longest_edge": 112 * 112},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return Qwen2_5_VLForConditionalGeneration(config)


@torch.no_grad()
def _make_attentive(model) -> None:
    """Fresh weights are so small that a token hardly hears the others."""
    for name, value in model.named_parameters():
        if name.endswith("proj.weight") or ".merger." in name:
            value.mul_(20)


@torch.no_grad()
def _follow(model, tokenizer: PreTrainedTokenizerFast, script: Mapping[str, Sequence[str]]) -> None:
    for name, value in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and "visual" not in name:
            value.zero_()
    embeddings, head = model.get_input_embeddings().weight, model.lm_head.weight
    embeddings.zero_()
    head.zero_()
    for i in range(len(embeddings)):
        embeddings[i, i] = 1
    for token, follow in script.items():
        for word in follow:
            head[_id(tokenizer, word), _id(tokenizer, token)] = 5


def _id(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    (number,) = tokenizer(word, add_special_tokens=False)["input_ids"]
    return number
