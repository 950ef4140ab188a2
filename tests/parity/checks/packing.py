"""What BAGEL's packer made of raw samples, against ours after sorting by `token_index`.

The sentences are rebuilt with blank images of the recorded sizes, so the whole path from a sentence to tokens
is held against the record, with nothing, text, ViT, VAE or all dropped, in its dense and its flex form.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from parity.golden import Codes, Golden

from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import PackingConfig, pack_sentence
from macro.inputs.tokenize_example import patchify
from macro.sentence.attention_mask import CAUSAL, FULL, NOISE, mask_mod
from macro.sentence.spans import Image, Sentence, Target, Text

DROPPED = {  # shares of text, ViT, VAE
    "none": (0.0, 0.0, 0.0),
    "text": (1.0, 0.0, 0.0),
    "vit": (0.0, 1.0, 0.0),
    "vae": (0.0, 0.0, 1.0),
    "all": (1.0, 1.0, 1.0),
}
MODES = {"causal": CAUSAL, "full": FULL, "noise": NOISE}
STREAMS = ("text", "vision", "latent")


@dataclass(frozen=True)
class Recorded:
    """One raw sample: its sentence, and whether its given images have a clean VAE copy."""

    sentence: Sentence
    reference_vae: bool


def raw_samples(golden: Golden) -> list[Recorded]:
    """The recorded samples as sentences, following their sequence plans."""
    count = sum(name.endswith("_plan") for name in golden.load("samples"))
    return [_raw_sample(golden, sample) for sample in range(count)]


def _raw_sample(golden: Golden, sample: int) -> Recorded:
    arrays, spans, clean, texts, images = golden.load("samples"), [], False, 0, 0
    copies = []  # sizes of the copies of the image that is being told

    def finish(target: bool):
        if copies:
            pixels = np.zeros((*_fitting(golden, copies), 3), np.uint8)
            spans.append(Target(pixels) if target else Image(pixels))
            copies.clear()

    target = False
    for item in golden.plan(sample):
        starts = item["type"] == "text" or item["loss"] or not copies or "vit" in dict(copies)
        if starts:
            finish(target)
            target = False
        if item["type"] == "text":
            words = "".join(map(chr, arrays[f"s{sample}_txt{texts}"]))
            spans.append(Text(words, learn=bool(item["loss"])))
            texts += 1
            continue
        kind = "vit" if item["type"] == "vit_image" else "vae"
        copies.append((kind, arrays[f"s{sample}_img{images}"].shape[1:]))
        images += 1
        target = target or bool(item["loss"])
        clean = clean or (kind == "vae" and not item["loss"])
    finish(target)
    return Recorded(Sentence(tuple(spans)), clean)


def _fitting(golden: Golden, copies: list) -> tuple[int, int]:
    """A size of which our rules make the recorded sizes of all copies."""
    images = _packing(golden).images
    for _, size in copies:
        made = {
            "vit": images.vit_size(size),
            "vae": images.target_size(size) if images.buckets else None,
        }
        if all(made[kind] == tuple(recorded) for kind, recorded in copies):
            return tuple(size)
    raise AssertionError(f"no size becomes {copies} by our rules")


def _vae_sizes(golden: Golden) -> list[tuple[int, int]]:
    """All sizes of images for the VAE."""
    arrays, sizes = golden.load("samples"), []
    for sample in range(sum(name.endswith("_plan") for name in arrays)):
        items = [item["type"] for item in golden.plan(sample) if item["type"] != "text"]
        for number, kind in enumerate(items):
            if kind == "vae_image":
                sizes.append(arrays[f"s{sample}_img{number}"].shape[1:])
    return sorted(set(sizes))


def _packing(golden: Golden) -> PackingConfig:
    """The golden model's, with a bucket for each recorded size."""
    given = golden.packing
    return PackingConfig(
        buckets=[(*size, 9) for size in _vae_sizes(golden)],
        noise_draws=1,
        patch=given.patch,
        vision_side=given.vision_side,
        latent_stride=given.latent_stride,
        latent_side=given.latent_side,
        reference_max_side=given.vision_side * given.patch,
        max_upscale=9.0,
        binding=False,
    )


def _config(golden: Golden, dropout: tuple, reference_vae: bool) -> PackingConfig:
    record = golden.load("pack_none_dense")
    return dataclasses.replace(
        _packing(golden),
        text=len(record["packed_text_ids"]) + 5,
        vision=len(record["packed_vit_position_ids"]) + 5,
        latent=len(record["packed_latent_position_ids"]) + 5,
        samples=len(raw_samples(golden)),
        reference_vae=reference_vae,
        cfg_dropout=CfgDropout("per_item", per_item=dropout),
        length_normalized_ce=True,
    )


def _packed(golden: Golden, case: str) -> tuple[dict, dict]:
    """Our row, and its tokens in one array each, sorted by sample and order."""

    def make():
        dropout, rng, tokenizer = DROPPED[case], np.random.default_rng(0), Codes(*golden.special_ids)
        samples = [
            pack_sentence(raw.sentence, tokenizer, _config(golden, dropout, raw.reference_vae), rng)
            for raw in raw_samples(golden)
        ]
        row = collate(samples, _config(golden, dropout, True))
        fields = ("segment_ids", "token_index", "block_id", "mask_mode", "position_ids")
        lengths = [len(row[stream]["segment_ids"]) for stream in STREAMS]
        tokens = {name: np.concatenate([row[stream][name] for stream in STREAMS]) for name in fields}
        tokens["stream"] = np.repeat([0, 1, 2], lengths)
        tokens["place"] = np.concatenate([np.arange(length) for length in lengths])
        order = np.lexsort((tokens["token_index"], tokens["segment_ids"]))
        order = order[tokens["segment_ids"][order] >= 0]
        return row, {name: values[order] for name, values in tokens.items()}

    return golden.once(f"packed {case}", make)


def _cases(golden: Golden):
    """(row, tokens, recorded) of all five cases in both forms."""
    for case in DROPPED:
        for form in ("dense", "flex"):
            yield *_packed(golden, case), golden.load(f"pack_{case}_{form}")


def check_places_streams_and_rope(golden: Golden):
    for _, tokens, record in _cases(golden):
        lengths = np.bincount(tokens["segment_ids"])
        assert len(tokens["token_index"]) == record["sequence_length"]
        # The flex form counts its padding as one more sample.
        np.testing.assert_array_equal(lengths, record["sample_lens"][: len(lengths)])
        np.testing.assert_array_equal(tokens["position_ids"], record["packed_position_ids"])
        for stream, name in enumerate(("text", "vit_token", "vae_token")):
            where = record["packed_text_indexes" if not stream else f"packed_{name}_indexes"]
            np.testing.assert_array_equal(np.flatnonzero(tokens["stream"] == stream), where)


def check_spans_and_modes(golden: Golden):
    for case in DROPPED:
        _, tokens = _packed(golden, case)
        record = golden.load(f"pack_{case}_flex")
        lengths, modes = record["split_lens"][:-1], record["attn_modes"][:-1]  # the last is padding
        np.testing.assert_array_equal(tokens["mask_mode"], np.repeat([MODES[mode] for mode in modes], lengths))
        starts = np.flatnonzero(np.diff(tokens["block_id"] + 1000 * tokens["segment_ids"], prepend=-1))
        np.testing.assert_array_equal(starts, np.cumsum(lengths) - lengths)


def check_contents(golden: Golden):
    for row, tokens, record in _cases(golden):
        text, vision, latent = (tokens["place"][tokens["stream"] == stream] for stream in range(3))
        np.testing.assert_array_equal(row["text"]["ids"][text], record["packed_text_ids"])
        np.testing.assert_array_equal(row["vision"]["position"][vision], record["packed_vit_position_ids"])
        np.testing.assert_array_equal(row["latent"]["position"][latent], record["packed_latent_position_ids"])
        clean = np.isneginf(record["packed_timesteps"])
        np.testing.assert_array_equal(np.isneginf(row["latent"]["t_raw"][latent]), clean)


def check_what_is_learnt_and_its_weights(golden: Golden):
    for row, tokens, record in _cases(golden):
        is_text, is_latent = tokens["stream"] == 0, tokens["stream"] == 2
        place = np.where(is_text, tokens["place"], 0)
        labels = np.where(is_text, row["text"]["labels"][place], -1)
        np.testing.assert_array_equal(np.flatnonzero(labels >= 0), record["ce_loss_indexes"])
        np.testing.assert_array_equal(labels[labels >= 0], record["packed_label_ids"])
        weights = row["text"]["weights"][place][labels >= 0]
        np.testing.assert_allclose(weights, record["ce_loss_weights"], rtol=1e-6)
        drawn = is_latent & row["latent"]["loss"][np.where(is_latent, tokens["place"], 0)]
        np.testing.assert_array_equal(np.flatnonzero(drawn), record["mse_loss_indexes"])


def check_one_time_per_noised_image(golden: Golden):
    for row, tokens, record in _cases(golden):
        latent = tokens["place"][tokens["stream"] == 2]
        for times in (record["packed_timesteps"], row["latent"]["t_raw"][latent]):
            per_image = {}
            for image, time in zip(row["latent"]["copy"][latent], times, strict=True):
                per_image.setdefault(int(image), set()).add(float(time))
            assert all(len(values) == 1 for values in per_image.values())


def check_sight(golden: Golden):
    for case in DROPPED:
        _, tokens = _packed(golden, case)
        record = golden.load(f"pack_{case}_dense")
        sees = mask_mod({k: v[:, None] for k, v in tokens.items()}, {k: v[None] for k, v in tokens.items()})
        for sample in range(tokens["segment_ids"].max() + 1):
            mine = np.flatnonzero(tokens["segment_ids"] == sample)
            np.testing.assert_array_equal(sees[np.ix_(mine, mine)], record[f"attn_mask_{sample}"])
        assert not sees[tokens["segment_ids"][:, None] != tokens["segment_ids"][None]].any()


def check_patches(golden: Golden):
    arrays, patches = golden.load("samples"), []
    for sample in range(len(raw_samples(golden))):
        items = [item["type"] for item in golden.plan(sample) if item["type"] != "text"]
        for number, kind in enumerate(items):
            if kind == "vit_image":
                pixels = arrays[f"s{sample}_img{number}"].transpose(1, 2, 0)
                patches.append(patchify(pixels, golden.model.vision.patch))
    recorded = golden.load("pack_none_dense")["packed_vit_tokens"]
    np.testing.assert_array_equal(np.concatenate(patches), recorded)
