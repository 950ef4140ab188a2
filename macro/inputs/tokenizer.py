"""Text to ids and back: byte-level BPE, so any text survives the round trip exactly.

Two vocabularies, one class:

    Tokenizer.demo()            about 1,200 entries trained on the scenes' own captions, about one token per word;
                                made by `python -m data.scenes.tokenizer`
    Tokenizer.from_file(path)   a Hugging Face `tokenizer.json`, as Qwen2.5 ships it

`encode` never returns special ids and `decode` skips them: `<|im_end|>` in a prompt is plain text. `<think>` and
`</think>` are ordinary text, as in BAGEL; the two layout marks and the 13 cells are single ids (for Qwen unused ones,
from 151665 on, so no embedding is resized).
Read next: `macro/sentence/plan.py` (a plan's tokens), `macro/inputs/tokenize_example.py`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from macro.sentence.layout import NUM_CLASSES
from macro.utils.errors import UserError

FRAMES = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
LAYOUT_MARKS = ("<layout>", "</layout>", *(f"<cell {n}>" for n in range(NUM_CLASSES)))
QWEN_LAYOUT = 151665

_DEMO = Path(__file__).parent.parent / "assets" / "demo_tokenizer.json"


class Tokenizer:
    """A BPE vocabulary and its special ids.

    Attributes:
        bos, eos: around every piece of text. image_start, image_end: around every image.
        layout_start, layout_end, cells: ids of the layout marks and of cells 0..12.
        vocab_size: one more than the greatest id.
        sha256: hash of the vocabulary and of how a text is split; the same for every file of one
            vocabulary.
    """

    def __init__(self, bpe: tokenizers.Tokenizer, layout: int = QWEN_LAYOUT, name: str = "tokenizer"):
        """
        Args:
            bpe: holds at least the four frame tokens.
            layout: the first of 15 consecutive layout ids, used if `bpe` does not define them.

        Raises:
            UserError: a frame token is missing, or a layout id is already in use.
        """
        missing = [token for token in FRAMES if bpe.token_to_id(token) is None]
        if missing:
            raise UserError(f"{name}: has no token {missing[0]}; use a tokenizer.json of Qwen2.5's layout")
        self._bpe = bpe
        self._bpe.encode_special_tokens = True  # special tokens in a prompt are plain text
        self.bos, self.eos, self.image_start, self.image_end = (bpe.token_to_id(token) for token in FRAMES)
        named = [bpe.token_to_id(token) for token in LAYOUT_MARKS]
        if None in named:
            named = list(range(layout, layout + len(LAYOUT_MARKS)))
            taken = [i for i in named if bpe.id_to_token(i) is not None]
            if taken:
                token = bpe.id_to_token(taken[0])
                raise UserError(
                    f"{name}: layout id {taken[0]} is already {token!r}; choose a higher first layout id"
                )
        self.layout_start, self.layout_end, *self.cells = named
        self.vocab_size = 1 + max([*named, *bpe.get_vocab(with_added_tokens=True).values()])

    @cached_property
    def sha256(self) -> str:
        vocab = sorted(self._bpe.get_vocab(with_added_tokens=True).items())
        probe = self.encode("The quick brown fox, 2 dogs & <image 1>: naïve 图像!\n")
        return hashlib.sha256(json.dumps([vocab, probe]).encode()).hexdigest()

    @classmethod
    def demo(cls) -> "Tokenizer":
        """The small vocabulary that comes with the package."""
        return cls.from_file(_DEMO)

    @classmethod
    def from_file(cls, path: str | Path, layout: int = QWEN_LAYOUT) -> "Tokenizer":
        """Reads a Hugging Face `tokenizer.json`; `layout` as in the constructor.

        Raises:
            UserError: the file is missing, unreadable or no tokenizer.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such file; name a tokenizer.json")
        try:
            bpe = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise UserError(f"{path}: not a tokenizer.json that can be read ({error})") from None
        return cls(bpe, layout, str(path))

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Tokenizer":
        """A byte-level BPE of at most `size` entries: special ids first, then 256 bytes, then merges."""
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[*FRAMES, *LAYOUT_MARKS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        return cls(bpe)

    def __setstate__(self, state: dict) -> None:
        """Restores, in worker processes, the one setting that the Rust side loses when pickled."""
        self.__dict__.update(state)
        self._bpe.encode_special_tokens = True

    def save(self, path: str | Path) -> None:
        """Writes a `tokenizer.json`."""
        Path(path).write_text(self._bpe.to_str(pretty=False), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without bos and eos."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special and unknown ids are skipped."""
        return self._bpe.decode(list(ids), skip_special_tokens=True)
