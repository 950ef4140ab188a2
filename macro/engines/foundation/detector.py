"""Grounding DINO as a stage: labels to boxes.

All labels of an image form one prompt, "a dog. a red house.". A query's score for a label is the highest score
among the label's own tokens, which keeps labels apart; the usual post-processing joins all words of the prompt
above the threshold. Read next: `segmenter.py`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from macro.engines.foundation.batching import answer
from macro.engines.ground_truth import overlap
from macro.engines.material.types import EngineImage
from macro.engines.provider import Box, Region
from macro.judges.model_loading import PretrainedModel
from macro.utils.errors import ItemError, UserError
from macro.utils.images import Pixels


@dataclass(frozen=True)
class GroundingDino(PretrainedModel):
    """`Provider.detect` by Grounding DINO.

    Attributes, besides those of `PretrainedModel`:
        batch: only images of one size share a batch, so that the answers do not depend on it.
        box_threshold: least score of a box for any word of the prompt, 0..1.
        text_threshold: least score of a box for the label it is given, 0..1.
        overlap: of two regions with a larger intersection over union, only the one with the higher score stays.
    """

    name: str = "IDEA-Research/grounding-dino-base"
    box_threshold: float = 0.3
    text_threshold: float = 0.25
    overlap: float = 0.7

    TITLE: ClassVar[str] = "Grounding DINO"
    CLASS: ClassVar[str] = "AutoModelForZeroShotObjectDetection"
    KINDS: ClassVar[tuple[str, ...]] = ("grounding-dino", "mm-grounding-dino")
    PROCESSOR: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        for field in ("box_threshold", "text_threshold", "overlap"):
            if not 0 <= getattr(self, field) <= 1:
                raise UserError(f"Grounding DINO: {field} is {getattr(self, field)}; it is a share of 0..1")

    def __call__(
        self, images: Sequence[EngineImage], labels: Sequence[Sequence[str]]
    ) -> list[list[Region] | ItemError]:
        """At most one region per occurrence of a label in its list, best first.

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[Pixels, tuple[str, ...]]]) -> list[list[Region] | ItemError]:
            return self._regions([pixels for pixels, _ in items], [asked for _, asked in items])

        items = [(p.pixels, tuple(asked)) for p, asked in zip(images, labels, strict=True)]
        named = iter(answer(run, [i for i in items if _names(i[1])], self.batch, key=lambda item: item[0].shape))
        return [next(named) if _names(asked) else [] for _, asked in items]

    def _regions(self, images: list[Pixels], labels: list[tuple[str, ...]]) -> list[list[Region] | ItemError]:
        model, processor = self.load()
        import torch

        names = [_names(asked) for asked in labels]
        inputs = processor(images=images, text=[". ".join(n) + "." for n in names], padding=True, return_tensors="pt")
        if inputs["input_ids"].shape[1] > model.config.max_text_len:
            raise ValueError(f"the labels are longer than the {model.config.max_text_len} tokens of a prompt")
        inputs = inputs.to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            outputs = model(**inputs)
        words = _words(inputs["input_ids"].cpu().numpy(), processor.tokenizer)
        scores = outputs.logits.float().sigmoid().cpu().numpy()
        boxes = outputs.pred_boxes.float().cpu().numpy()
        found = []
        for n, asked, word, score, box in zip(names, labels, words, scores, boxes, strict=True):
            if not np.isfinite(box).all():
                found.append(ItemError("Grounding DINO's boxes are not numbers"))
                continue
            # Scores have columns beyond the prompt's tokens, up to the model's longest prompt.
            score = score[:, : len(word)]
            by_name = np.stack([score[:, word == i].max(1, initial=0.0) for i in range(len(n))], 1)
            by_name[score[:, word >= 0].max(1, initial=0.0) < self.box_threshold] = -1
            found.append(chosen(by_name, box, n, asked, self.text_threshold, self.overlap))
        return found


def _name(label: str) -> str:
    """A label as written in the prompt, without the full stops and question marks that would separate labels."""
    return " ".join(label.lower().replace(".", " ").replace("?", " ").split())


def _names(labels: Sequence[str]) -> list[str]:
    """The different names among labels, in order; a label without letters has none."""
    return [name for name in dict.fromkeys(map(_name, labels)) if name]


def _words(ids: Int[np.ndarray, "b n"], tokenizer: Any) -> Int[np.ndarray, "b n"]:
    """Which name, from 0, each token of "[CLS] a dog . a house . [SEP]" belongs to; -1 to none."""
    stop = ids == tokenizer.convert_tokens_to_ids(".")
    number = np.cumsum(stop, axis=1)
    frame = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return np.where(stop | np.isin(ids, frame), -1, number)


def chosen(
    scores: Float[np.ndarray, "q l"],
    boxes: Float[np.ndarray, "q 4"],
    names: Sequence[str],
    labels: Sequence[str],
    threshold: float,
    most: float,
) -> list[Region]:
    """The regions that match labels: greedily, highest score first, each label at most as often as it was requested.

    Args:
        scores: of query q for name l, 0..1; below 0 for what must not be chosen.
        boxes: (centre x, centre y, width, height) of each query, 0..1 of the image.
        names: of the columns; labels: as requested.
        threshold: least score of a region.
        most: intersection over union with a chosen region of any label above which a query is a duplicate.
    """
    wanted = Counter(map(_name, labels))
    spelt = {name: [label for label in labels if _name(label) == name] for name in wanted}
    regions: list[Region] = []
    # Stable, so that equal scores are taken in the order of queries and labels.
    for place in np.argsort(-scores, axis=None, kind="stable"):
        query, column = np.unravel_index(place, scores.shape)
        score, name = float(scores[query, column]), names[column]
        if score < threshold:
            break
        box = _corners(boxes[query])
        if not wanted[name] or Region(name, box).area == 0 or any(overlap(box, r.box) > most for r in regions):
            continue
        label = spelt[name][-wanted[name]]
        wanted[name] -= 1
        regions.append(Region(label, box, score))
    return regions


def _corners(box: Float[np.ndarray, "4"]) -> Box:
    x, y, width, height = (float(value) for value in box)
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return tuple(min(max(edge, 0.0), 1.0) for edge in edges)
