"""What BAGEL's packer made of three samples, recorded, against ours after sorting by `order`.

The sentences are rebuilt with pictures of the recorded sizes: our resizing gives the recorded ViT sizes from
the VAE sizes, so the whole path is held against the record, with nothing, text, ViT, VAE or all dropped.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from macro.inputs.packing import PackingConfig, pack_sentence
from macro.inputs.rows import make_row
from macro.inputs.transforms import patchify
from macro.sentence.sight import CAUSAL, FULL, NOISE, visible
from macro.sentence.spans import Image, Sentence, Target, Text

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "parity" / "bagel"
FOLDER = Path(os.environ.get("BAGEL_GOLDENS", _BESIDE))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no recorded BAGEL (BAGEL_GOLDENS)")

DROPPED = {  # shares of text, ViT, VAE
    "none": (0.0, 0.0, 0.0),
    "text": (1.0, 0.0, 0.0),
    "vit": (0.0, 1.0, 0.0),
    "vae": (0.0, 0.0, 1.0),
    "all": (1.0, 1.0, 1.0),
}
MODES = {"causal": CAUSAL, "full": FULL, "noise": NOISE}


class Codes:
    """The recorded toy tokenizer: a text is given as the characters of its ids."""

    bos, eos, image_start, image_end = 120, 121, 122, 123

    def encode(self, text):
        return [ord(c) for c in text]


def load(name):
    return np.load(FOLDER / f"{name}.npz")


def config(item_dropout, reference_vae):
    sizes = [(32, 48), (48, 32), (32, 32), (48, 48)]
    return PackingConfig(
        text=80, vision=40, latent=50, samples=3, buckets=[(*size, 2) for size in sizes], draws=1, patch=14,
        vision_side=8, latent_side=8, reference_max_side=100, reference_vae=reference_vae, binding=False,
        item_dropout=item_dropout,
    )  # fmt: skip


def sentences():
    recorded = load("samples")

    def text(name, learn=False):
        return Text("".join(map(chr, recorded[name])), learn)

    def blank(name):
        return np.zeros((*recorded[name].shape[1:], 3), np.uint8)

    yield Sentence((
        Image(blank("s0_img0")), text("s0_txt0"), Image(blank("s0_img2")), text("s0_txt1"),
        Target(blank("s0_img4")),
    ))  # fmt: skip
    yield Sentence((text("s1_txt0"), Target(blank("s1_img0")), text("s1_txt1", learn=True)))
    yield Sentence((Image(blank("s2_img0")), text("s2_txt0"), text("s2_txt1", learn=True)))


@pytest.fixture(params=DROPPED)
def row_and_record(request):
    """Our row with its tokens in one array each, sorted by sample and order, and the two records of it."""
    dropout, rng = DROPPED[request.param], np.random.default_rng(0)
    samples = [
        pack_sentence(sentence, Codes(), config(dropout, reference_vae=i < 2), rng)
        for i, sentence in enumerate(sentences())
    ]
    row = make_row(samples, config(dropout, reference_vae=True))
    fields = ("sample", "order", "span", "mode", "rope")
    tokens = {f: np.concatenate([row[s][f] for s in ("text", "vision", "latent")]) for f in fields}
    tokens["stream"] = np.repeat([0, 1, 2], [len(row[s]["sample"]) for s in ("text", "vision", "latent")])
    tokens["place"] = np.concatenate([np.arange(len(row[s]["sample"])) for s in ("text", "vision", "latent")])
    order = np.lexsort((tokens["order"], tokens["sample"]))
    order = order[tokens["sample"][order] >= 0]
    tokens = {name: values[order] for name, values in tokens.items()}
    return row, tokens, load(f"pack_{request.param}_flex"), load(f"pack_{request.param}_dense")


def test_places_streams_and_rope(row_and_record):
    _, tokens, record, _ = row_and_record
    assert len(tokens["order"]) == record["sequence_length"]
    np.testing.assert_array_equal(np.bincount(tokens["sample"]), record["sample_lens"][:-1])
    np.testing.assert_array_equal(tokens["rope"], record["packed_position_ids"])
    for stream, name in enumerate(("text", "vit_token", "vae_token")):
        where = record["packed_text_indexes" if not stream else f"packed_{name}_indexes"]
        np.testing.assert_array_equal(np.flatnonzero(tokens["stream"] == stream), where)


def test_spans_and_modes(row_and_record):
    _, tokens, record, _ = row_and_record
    # The last recorded split is padding.
    modes = np.repeat([MODES[mode] for mode in record["attn_modes"][:-1]], record["split_lens"][:-1])
    np.testing.assert_array_equal(tokens["mode"], modes)
    starts = np.flatnonzero(np.diff(tokens["span"] + 1000 * tokens["sample"], prepend=-1))
    np.testing.assert_array_equal(starts, np.cumsum(record["split_lens"][:-1]) - record["split_lens"][:-1])


def test_contents(row_and_record):
    row, tokens, record, _ = row_and_record
    text, vision, latent = (tokens["place"][tokens["stream"] == stream] for stream in range(3))
    np.testing.assert_array_equal(row["text"]["ids"][text], record["packed_text_ids"])
    labels = row["text"]["labels"][tokens["place"]]
    learnt = (tokens["stream"] == 0) & (labels >= 0)
    np.testing.assert_array_equal(np.flatnonzero(learnt), record["ce_loss_indexes"])
    np.testing.assert_array_equal(labels[learnt], record["packed_label_ids"])
    np.testing.assert_array_equal(row["vision"]["position"][vision], record["packed_vit_position_ids"])
    np.testing.assert_array_equal(row["latent"]["position"][latent], record["packed_latent_position_ids"])
    clean = np.isneginf(record["packed_timesteps"])
    np.testing.assert_array_equal(np.isneginf(row["latent"]["t_raw"][latent]), clean)
    drawn = (tokens["stream"] == 2) & row["latent"]["loss"][np.minimum(tokens["place"], 49)]
    np.testing.assert_array_equal(np.flatnonzero(drawn), record["mse_loss_indexes"])


def test_sight(row_and_record):
    _, tokens, _, record = row_and_record
    sees = visible({k: v[:, None] for k, v in tokens.items()}, {k: v[None] for k, v in tokens.items()})
    for sample in range(3):
        mine = np.flatnonzero(tokens["sample"] == sample)
        np.testing.assert_array_equal(sees[np.ix_(mine, mine)], record[f"attn_mask_{sample}"])
    assert not sees[tokens["sample"][:, None] != tokens["sample"][None]].any()


def test_patches():
    recorded, record = load("samples"), load("pack_none_dense")
    plans = [json.loads(str(recorded[f"s{s}_plan"])) for s in range(3)]
    patches, images = [], [iter(sorted(k for k in recorded if k.startswith(f"s{s}_img"))) for s in range(3)]
    for plan, names in zip(plans, images, strict=True):
        for item in plan:
            if item["type"] != "text":
                pixels = recorded[next(names)].transpose(1, 2, 0)
                patches += [patchify(pixels, 14)] if item["type"] == "vit_image" else []
    np.testing.assert_array_equal(np.concatenate(patches), record["packed_vit_tokens"])
