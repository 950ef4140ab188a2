"""A `Chat` on a `transformers` model that is loaded here: Qwen3 for words, the Qwen-VL family for images too.

    chat = LocalChat("Qwen/Qwen2.5-VL-7B-Instruct", device="cuda")
    chat.ask(asks)

The model's own chat template says how a conversation is written. Words are drawn at random by each question's own
seed, as an argmax of logits with Gumbel noise: so what else is in a batch changes no draw. Read next: `chat.py`.
"""

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from macro.judges.chat import LlmRequest, cache_key, correction, parse_answer, system_prompt
from macro.judges.model_loading import device_of, format_of, loading, once
from macro.judges.response_cache import ResponseCache
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError

_BEST = 20  # a word is drawn among so many: below them are hundreds of thousands that are all wrong


@dataclass(frozen=True)
class _Value:
    """An answer that is there, whatever it is."""

    value: Any


@dataclass(frozen=True, eq=False)
class _Conversation:
    """Messages as chat templates take them, the images in them, and the seed of the next one."""

    messages: list[dict]
    images: list[image_io.Pixels]
    seed: int


class LocalChat:
    """A model of the hub, or of a folder, loaded when it is first asked and once per process.

    Args:
        model: its name or path.
        device: None is a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16".
        cache: folder of answers (`response_cache.py`); None keeps none.
        mends: how often a malformed answer is sent back.
        batch: questions that go through the model together. With more than one the last bits of its numbers, and so
            now and then a word, depend on which ones those are.
        max_tokens: an answer ends there.
        temperature: 0 takes the likeliest word each time.
        side: images with a longer side are shrunk to it, pixels.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dtype: str = "bfloat16",
        cache: str | os.PathLike | None = None,
        max_repairs: int = 2,
        batch: int = 1,
        max_tokens: int = 1024,
        temperature: int | float = 0.7,
        side: int = 1024,
    ):
        if batch < 1:
            raise UserError(f"language model {model}: batch is {batch}; use at least 1")
        self.model = model
        self._device, self._dtype = device, dtype
        self._stored, self._mends, self._batch = ResponseCache(cache), max_repairs, batch
        self._max_tokens, self._temperature, self._side = max_tokens, temperature, side

    def ask(self, asks: Sequence[LlmRequest]) -> list[Any]:
        """What `read` made of each answer, or a `ItemError`, in order; the same question twice is asked once.

        Raises:
            UserError: the model cannot be loaded, or is to see images and cannot.
        """
        keys = [self._key(ask) for ask in asks]
        different = dict(zip(keys, asks, strict=True))
        answers = {key: self._known(key, ask) for key, ask in different.items()}
        turns: dict[str, list[tuple[str, str]]] = {key: [] for key in different if answers[key] is None}
        for _ in range(self._mends + 1):
            open_keys = [key for key in turns if answers[key] is None]
            for start in range(0, len(open_keys), self._batch):
                part = open_keys[start : start + self._batch]
                conversations = [self._conversation(different[key], turns[key]) for key in part]
                for key, written in zip(part, self._written(conversations), strict=True):
                    answers[key] = self._understood(key, different[key], written, turns[key])
        return [self._settled(answers[key], turns.get(key, ())) for key in keys]

    def _key(self, ask: LlmRequest) -> str:
        return cache_key(
            ask,
            local=self.model,
            dtype=self._dtype,
            side=self._side,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )

    def _known(self, key: str, ask: LlmRequest) -> Any | None:
        stored = self._stored.get(key)
        if stored is None:
            return None
        try:
            return _Value(ask.read(stored))
        except ItemError:  # `read` has become stricter since; it is asked again
            return None

    def _understood(self, key: str, ask: LlmRequest, written: Any, turns: list[tuple[str, str]]) -> Any | None:
        """The value, a failure, or None where it is to be asked again."""
        if isinstance(written, ItemError):
            return written
        try:
            answer, value = parse_answer(ask, written)
        except ItemError as error:
            turns.append((written, str(error)))
            return None
        self._stored.put(key, answer, self.model)
        return _Value(value)

    @staticmethod
    def _settled(answer: Any, turns: Sequence[tuple[str, str]]) -> Any:
        if answer is None:
            return ItemError(f"malformed answer {len(turns)} times, last: {turns[-1][1]}")
        return answer.value if isinstance(answer, _Value) else answer

    # ---- the model ----

    def _conversation(self, ask: LlmRequest, turns: Sequence[tuple[str, str]]) -> _Conversation:
        parts: list[dict] = []
        images: list[image_io.Pixels] = []
        for part in ask.parts:
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
            else:
                parts.append({"type": "image"})
                images.append(image_io.shrink_to(part, self._side))
        words_only = "\n".join(part["text"] for part in parts) if not images else None
        messages = [
            {"role": "system", "content": system_prompt(ask)},
            {"role": "user", "content": words_only or parts},
        ]
        for written, reason in turns:
            messages += [
                {"role": "assistant", "content": written},
                {"role": "user", "content": correction(reason)},
            ]
        return _Conversation(messages, images, ask.seed + len(turns))

    def _written(self, conversations: list[_Conversation]) -> list[Any]:
        """What the model writes in each; a batch that does not fit is asked one by one."""
        try:
            return self._generated(conversations)
        # What models raise on what they cannot take; out of memory is a RuntimeError too.
        except (RuntimeError, ValueError) as error:
            if len(conversations) == 1:
                lines = str(error).strip().splitlines()
                return [ItemError(f"{type(error).__name__}: {lines[0] if lines else 'no reason'}")]
        return [written for conversation in conversations for written in self._written([conversation])]

    def _generated(self, conversations: list[_Conversation]) -> list[str]:
        import torch
        from transformers import GenerationConfig

        model, tokenizer, processor = _load(self.model, self._device, self._dtype)
        inputs = _inputs(self.model, model, tokenizer, processor, conversations)
        length = inputs["input_ids"].shape[1]
        most = model.config.get_text_config().max_position_embeddings
        if length + self._max_tokens > most:
            raise ValueError(f"question and answer take {length} + {self._max_tokens} tokens, the model reads {most}")
        processors = []
        if self._temperature > 0:
            processors = [_drawing([c.seed for c in conversations], self._temperature)]
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=self._max_tokens,
            eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.inference_mode():
            out = model.generate(**inputs, generation_config=settings, logits_processor=processors)
        return tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)


@once
def _load(name: str, device: str | None, dtype: str) -> tuple[Any, Any, Any]:
    """(model, tokenizer, image processor or None)."""
    with loading("language model", name):
        from transformers import (
            AutoConfig,
            AutoImageProcessor,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoTokenizer,
        )

        sees = hasattr(AutoConfig.from_pretrained(name), "vision_config")
        loader = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = loader.from_pretrained(name).to(device=device_of(device), dtype=format_of(dtype)).eval()
        # Not `AutoProcessor`: it wants torchvision, for videos.
        processor = AutoImageProcessor.from_pretrained(name) if sees else None
        return model, AutoTokenizer.from_pretrained(name), processor


def _inputs(name: str, model: Any, tokenizer: Any, processor: Any, conversations: list[_Conversation]) -> dict:
    """The model's arguments for a batch, padded on the left."""
    marks = tuple(tokenizer.get_added_vocab())
    texts = [
        # Qwen3 thinks aloud unless told not to; other templates do not know the word.
        tokenizer.apply_chat_template(
            _plain(c.messages, marks), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for c in conversations
    ]
    images = [pixels for c in conversations for pixels in c.images]
    if not images:
        inputs = tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
        return {key: inputs[key].to(model.device) for key in ("input_ids", "attention_mask")}
    mark_id = getattr(model.config, "image_token_id", None)
    if processor is None or mark_id is None:
        raise UserError(f"language model {name}: is to see images and cannot; name one such as Qwen2.5-VL")
    seen = processor(images=images, return_tensors="pt")
    counts = iter((seen["image_grid_thw"].prod(-1) // processor.merge_size**2).tolist())
    mark = tokenizer.convert_ids_to_tokens(mark_id)
    texts = [_with_room(text, mark, counts) for text in texts]
    inputs = dict(tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"))
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    inputs |= {"pixel_values": seen["pixel_values"].to(model.dtype), "image_grid_thw": seen["image_grid_thw"]}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # from transformers 5 on
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == mark_id).int()
    return {key: value.to(model.device) for key, value in inputs.items()}


def _plain(told: Any, marks: Sequence[str]) -> Any:
    """Messages without what would be read as marks of the model's own: the start of a turn, the place of an image."""
    if isinstance(told, str):
        for mark in marks:
            told = told.replace(mark, "")
        return told
    if isinstance(told, dict):
        return {key: _plain(value, marks) for key, value in told.items()}
    return [_plain(item, marks) for item in told]


def _with_room(text: str, mark: str, counts: Any) -> str:
    """The text with as many marks for each image as it has tokens."""
    pieces = text.split(mark)
    return "".join(piece + mark * next(counts) for piece in pieces[:-1]) + pieces[-1]


def _drawing(seeds: Sequence[int], temperature: int | float) -> Any:
    """Makes the likeliest word a random one: among the `_BEST`, each row by its own seed."""
    import torch
    from transformers import LogitsProcessor

    class Drawing(LogitsProcessor):
        def __init__(self):
            self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def __call__(self, ids, scores):
            del ids
            best = scores.topk(min(_BEST, scores.shape[-1]), dim=-1)
            # Drawn on the CPU: the same numbers whatever the device.
            uniform = torch.stack([torch.rand(best.values.shape[-1], generator=g) for g in self.generators])
            noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
            drawn = best.values.float() / temperature + noise.to(scores.device)
            return torch.full_like(scores, -torch.inf).scatter(-1, best.indices, drawn.to(scores.dtype))

    return Drawing()
