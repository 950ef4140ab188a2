"""Photographs from real MacroData files through packing."""

import os
from pathlib import Path

import numpy as np
import pytest

from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import PackingConfig, pack_sequence
from macro.inputs.tokenizer import Tokenizer
from macro.sentence.formats import load_images, read

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "real" / "macrodata"
FOLDER = Path(os.environ.get("MACRODATA_SAMPLES", _BESIDE))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no MacroData samples (MACRODATA_SAMPLES)")


@pytest.mark.parametrize("arrangement", ["in_sentence", "image_first"])
def test_real_samples_pack_into_one_row(arrangement):
    files = sorted(FOLDER.glob("*.json"))
    sentences = [load_images(read(file)) for file in files]
    config = PackingConfig(
        text=1500, vision=200, latent=1024, buckets=((128, 128, 4), (96, 128, 4), (128, 96, 8)),
        reference_vae=True, cfg_dropout=CfgDropout(no_text=0.0, no_image=0.0, null=0.0), arrangement=arrangement,
    )  # fmt: skip
    row = pack_sequence(sentences, Tokenizer.demo(), config, seed=0, numbers=range(len(sentences)))
    assert sorted(row["examples"][:2]) == [0, 1]
    images = sum(len(sentence.images) for sentence in sentences)
    for stream, frames in (("vision", images), ("latent", images + 2 * config.noise_draws)):
        used = row[stream]["segment_ids"] >= 0
        copies = set(zip(row[stream]["segment_ids"][used], row[stream]["block_id"][used], strict=True))
        assert len(copies) == frames
    patches = row["vision"]["patches"][row["vision"]["segment_ids"] >= 0]
    assert patches.min() >= -1 and patches.max() <= 1 and patches.std() > 0.2
    drawn = row["latent"]["source"][row["latent"]["loss"]]
    assert len(drawn) == config.noise_draws * len(np.unique(drawn)) > 0
