"""A `Chat` on a `transformers` model that is loaded here: Qwen3 for text, the Qwen-VL family for images too.

    chat = LocalChat("Qwen/Qwen2.5-VL-7B-Instruct", device="cuda")
    chat.ask(asks)

The model's own chat template formats a conversation. Requests are answered one by one, each sampled with its own
seed, so that no request changes another's answer. Read next: `chat.py`.
"""

import inspect
import os
from collections.abc import Sequence
from typing import Any

from macro.judges.chat import Chat, LlmRequest, Turns, messages
from macro.judges.model_loading import device_of, first_line, format_of, loading, once
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError

_BEST = 20  # top-k of the sampling: below are hundreds of thousands of tokens that are all wrong


class LocalChat(Chat):
    """A model of the hub, or of a folder, loaded on its first request and once per process.

    Args:
        model: its name or path.
        device: None is a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16".
        cache: folder of answers (`response_cache.py`); None keeps none.
        max_repairs: how often a malformed answer is sent back.
        max_tokens: length limit of an answer.
        temperature: 0 takes the most likely token each time.
        side: images with a longer side are scaled down to it, pixels.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dtype: str = "bfloat16",
        cache: str | os.PathLike | None = None,
        max_repairs: int = 2,
        max_tokens: int = 1024,
        temperature: int | float = 0.7,
        side: int = 1024,
    ):
        settings = {"dtype": dtype, "side": side, "max_tokens": max_tokens, "temperature": temperature}
        super().__init__(model, {"local": model, **settings}, cache, max_repairs, threads=1)
        self._device, self._dtype = device, dtype
        self._max_tokens, self._temperature, self._side = max_tokens, temperature, side

    def _write(self, key: str, ask: LlmRequest, turns: Turns) -> str | ItemError:
        del key
        self._count(asked=1)
        images: list[image_io.Pixels] = []

        def place_of(pixels: image_io.Pixels) -> dict:
            images.append(image_io.shrink_to(pixels, self._side))
            return {"type": "image"}

        try:
            return self._generate(messages(ask, turns, place_of), images, ask.seed + len(turns))
        # What models raise on inputs that they cannot take; out of memory is a RuntimeError too.
        except (RuntimeError, ValueError) as error:
            return ItemError(f"{type(error).__name__}: {first_line(error)}")

    def _generate(self, told: list[dict], images: list[image_io.Pixels], seed: int) -> str:
        import torch
        from transformers import GenerationConfig

        model, tokenizer, processor = _load(self.model, self._device, self._dtype)
        inputs = _inputs(self.model, model, tokenizer, processor, told, images)
        length = inputs["input_ids"].shape[1]
        most = model.config.get_text_config().max_position_embeddings
        if length + self._max_tokens > most:
            raise ValueError(f"question and answer take {length} + {self._max_tokens} tokens, the model reads {most}")
        drawn = {"temperature": float(self._temperature), "top_k": _BEST} if self._temperature > 0 else {}
        settings = GenerationConfig(
            do_sample=bool(drawn),
            **drawn,
            max_new_tokens=self._max_tokens,
            eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.inference_mode(), torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            out = model.generate(**inputs, generation_config=settings)
        return tokenizer.decode(out[0, length:], skip_special_tokens=True)


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


def _inputs(
    name: str, model: Any, tokenizer: Any, processor: Any, told: list[dict], images: list[image_io.Pixels]
) -> dict:
    """The model's arguments for a conversation."""
    told = _without_marks(told, tuple(tokenizer.get_added_vocab()))
    # Qwen3 thinks aloud unless this is off; other templates ignore the argument.
    text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    inputs = {}
    if images:
        mark_id = getattr(model.config, "image_token_id", None)
        if processor is None or mark_id is None:
            raise UserError(f"language model {name}: is to see images and cannot; name one such as Qwen2.5-VL")
        seen = processor(images=images, return_tensors="pt")
        inputs = {"pixel_values": seen["pixel_values"].to(model.dtype), "image_grid_thw": seen["image_grid_thw"]}
        # Each image's mark is repeated once per token of the image.
        counts = (seen["image_grid_thw"].prod(-1) // processor.merge_size**2).tolist()
        mark = tokenizer.convert_ids_to_tokens(mark_id)
        first, *pieces = text.split(mark)
        text = first + "".join(mark * count + piece for count, piece in zip(counts, pieces, strict=True))
    encoded = tokenizer([text], add_special_tokens=False, return_tensors="pt")
    inputs |= {key: encoded[key] for key in ("input_ids", "attention_mask")}
    if images and "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # from transformers 5 on
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == mark_id).int()
    return {key: value.to(model.device) for key, value in inputs.items()}


def _without_marks(told: Any, marks: Sequence[str]) -> Any:
    """Messages without text that would be parsed as the model's own marks: the start of a turn, an image."""
    if isinstance(told, str):
        for mark in marks:
            told = told.replace(mark, "")
        return told
    if isinstance(told, dict):
        return {key: _without_marks(value, marks) for key, value in told.items()}
    return [_without_marks(item, marks) for item in told]
