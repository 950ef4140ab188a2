"""The contexts of classifier-free guidance, and condition dropout, which trains a model on them.

    full      everything
    no_text   images only: all text, the plan and the layout binding are dropped
    no_image  text and plan only
    null      the target alone

`context_mask` defines, for training and sampling alike, which spans a context drops.
Training draws one mask per sample (`CfgDropout.sample`). In mode "joint" it is one context for all spans together, so
the probability of a context does not depend on the number of images. "per_item" is the rule of BAGEL's and
MACRO's training scripts: each text, ViT copy and VAE copy is dropped independently, so that with n images the context
`no_text` has a probability of about 0.1^(n + 1).

Read next: `macro/inputs/tokenize_example.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

CONTEXTS = ("full", "no_text", "no_image", "null")
MODES = ("joint", "per_item")


@dataclass(frozen=True)
class ConditionMask:
    """Which spans of a sentence are dropped, by index.

    Attributes:
        text: dropped text and plan spans; position ids do not advance.
        vit, vae: images whose ViT or clean VAE tokens are dropped; position ids advance as if they were there.
        scored: whether the remaining text is still supervised.
        bound: whether image tokens get the embedding of their subject.
    """

    text: frozenset[int] = frozenset()
    vit: frozenset[int] = frozenset()
    vae: frozenset[int] = frozenset()
    scored: bool = True
    bound: bool = True


def context_mask(context: str, sentence: Sentence) -> ConditionMask:
    """The mask of `context` (one of CONTEXTS) for a sentence."""
    if context not in CONTEXTS:
        raise ValueError(f"context {context!r}: must be one of {', '.join(CONTEXTS)}")
    no_text, no_image = context in ("no_text", "null"), context in ("no_image", "null")
    text = frozenset(i for i, span in enumerate(sentence) if no_text and isinstance(span, Text | Plan))
    images = frozenset(i for i, span in enumerate(sentence) if no_image and isinstance(span, Image | Target))
    return ConditionMask(text, images, images, scored=context == "full", bound=not no_text)


@dataclass(frozen=True)
class CfgDropout:
    """Condition dropout (`config.cfg_dropout`).

    Attributes:
        mode: "joint" or "per_item".
        no_text, no_image, null: in mode "joint", the probability that a sample is reduced to that context.
        per_item: in mode "per_item", the drop probability of each text, each ViT copy and each VAE copy.
    """

    mode: str = "joint"
    no_text: float = 0.1
    no_image: float = 0.1
    null: float = 0.1
    per_item: Sequence = (0.1, 0.3, 0.3)

    def __post_init__(self):
        object.__setattr__(self, "per_item", tuple(self.per_item))
        if self.mode not in MODES:
            raise UserError(f"config.cfg_dropout.mode={self.mode!r}: must be one of {', '.join(MODES)}")
        shares = (self.no_text, self.no_image, self.null)
        if min(shares) < 0 or sum(shares) > 1:
            raise UserError(f"config.cfg_dropout: no_text, no_image and null are {shares}; their sum must be 1 at most")
        if len(self.per_item) != 3 or not all(0 <= share <= 1 for share in self.per_item):
            raise UserError(f"config.cfg_dropout.per_item={self.per_item!r}: must be 3 shares, of text, ViT and VAE")

    def sample(self, rng: np.random.Generator, sentence: Sentence) -> ConditionMask:
        """Samples the mask of one training example.

        A sentence without a target keeps everything, since guidance does not apply to it.
        """
        if self.mode == "per_item":
            return self._sample_items(rng, sentence)
        chance = rng.random()  # always drawn, so that later draws do not depend on the sentence
        if sentence.target is None:
            return ConditionMask()
        for context in CONTEXTS[1:]:
            if chance < getattr(self, context):
                return context_mask(context, sentence)
            chance -= getattr(self, context)
        return ConditionMask()

    def _sample_items(self, rng: np.random.Generator, sentence: Sentence) -> ConditionMask:
        chances = rng.random((3, len(sentence)))
        if sentence.target is None:
            return ConditionMask()
        text, vit, vae = self.per_item
        images = [i for i, span in enumerate(sentence) if isinstance(span, Image | Target)]
        return ConditionMask(
            frozenset(i for i, span in enumerate(sentence) if _droppable(span) and chances[0, i] < text),
            frozenset(i for i in images if chances[1, i] < vit),
            frozenset(i for i in images if chances[2, i] < vae),
        )

    def probabilities(self, sentence: Sentence, reference_vae: bool = True) -> dict[str, float]:
        """The probability of each context of a sentence in training.

        Contexts with the same remaining tokens, such as `no_text` and `null` without images, share one probability.

        Args:
            sentence: has a target. reference_vae: whether references have a VAE copy (sources always do).
        """
        text = [isinstance(span, Text) and not span.learn for span in sentence if isinstance(span, Text | Plan)]
        images = list(sentence.images)
        vae = sum(reference_vae or image.role == "source" for image in images)
        kept = {c: (not text or _keeps_text(c), not images or _keeps_images(c)) for c in CONTEXTS}
        if self.mode == "joint":
            shares = {context: getattr(self, context) for context in CONTEXTS[1:]}
            shares["full"] = 1 - sum(shares.values())
            return {c: sum(share for other, share in shares.items() if kept[other] == kept[c]) for c in CONTEXTS}
        drop_text, drop_vit, drop_vae = self.per_item
        dropped_text = drop_text ** len(text) if all(text) else 0.0  # supervised text is never dropped
        kept_text = (1 - drop_text) ** sum(text)
        dropped_images, kept_images = drop_vit ** len(images) * drop_vae**vae, (1 - drop_vit) ** len(images)
        kept_images *= (1 - drop_vae) ** vae
        return {
            context: (kept_text if _keeps_text(context) or not text else dropped_text)
            * (kept_images if _keeps_images(context) or not images else dropped_images)
            for context in CONTEXTS
        }


def _droppable(span) -> bool:
    """Whether dropout may drop the span: given text. Supervised text and plans always stay."""
    return isinstance(span, Text) and not span.learn


def _keeps_text(context: str) -> bool:
    return context in ("full", "no_image")


def _keeps_images(context: str) -> bool:
    return context in ("full", "no_text")
