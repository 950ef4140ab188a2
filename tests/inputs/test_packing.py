"""Windows and rows: purity, every sample once, fill, the latent table, padding."""

import dataclasses

import numpy as np
import pytest
from inputs.toy import PACKING

from macro.inputs import packing
from macro.inputs.bin_packing import pack
from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import PackingConfig, epoch_and_index, pack_sentence, pack_sequence, sample_rng
from macro.sentence.prompt import build_sentence, in_sentence
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        same(a[name], b[name]) if isinstance(a[name], dict) else np.testing.assert_array_equal(
            a[name], b[name]
        )


def pack_window(source, tokenizer, config, seed, window):
    rows = packing.assign_window(source, tokenizer, config, seed, window)
    return [pack_sequence(source, tokenizer, config, seed, numbers) for numbers in rows]


def test_a_window_is_a_pure_function_and_holds_every_sample_once(tokenizer, make_source):
    source = make_source(100)
    rows = pack_window(source, tokenizer, PACKING, 5, 3)
    packing._permutation.cache_clear()
    for row, again in zip(rows, pack_window(source, tokenizer, PACKING, 5, 3), strict=True):
        same(row, again)
    expected = sorted(epoch_and_index(5, number, 100)[1] for number in range(72, 96))
    assert sorted(i for row in rows for i in row["examples"] if i >= 0) == expected
    other = pack_window(source, tokenizer, PACKING, 6, 3)
    assert sorted(i for row in other for i in row["examples"] if i >= 0) != expected


def test_latents_are_found_whatever_the_order_of_sizes(tokenizer, make_image):
    """JAX sorts the keys of a dict when it hands it on, so the table must not go by the configured order."""
    config = dataclasses.replace(PACKING, buckets=((64, 16, 2), (16, 64, 1), (32, 32, 1)), noise_draws=1, latent=64)
    sizes = [(32, 32), (64, 16), (16, 64), (64, 16)]
    images = [np.full((*size, 3), 10 * n, np.uint8) for n, size in enumerate(sizes, 1)]
    spans = [Image(image, role="source") for image in images[:-1]]
    one = Sentence((*spans, Target(images[-1])))
    row = collate([pack_sentence(one, tokenizer, config, np.random.default_rng(0))], config)
    table = [row["pixels"][name][:, ::16, ::16, 0].ravel() for name in sorted(row["pixels"])]
    levels = np.concatenate(table)[row["latent"]["source"][row["latent"]["segment_ids"] == 0]]
    assert levels.tolist() == np.repeat([10, 20, 30, 40], 4).tolist()


def test_epochs_are_permutations_of_their_own():
    first, second = ([epoch_and_index(0, epoch * 50 + i, 50) for i in range(50)] for epoch in (0, 1))
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(50))
    assert {epoch for epoch, _ in second} == {1} and [i for _, i in first] != [i for _, i in second]


def test_a_row_is_its_samples_side_by_side(tokenizer, make_source):
    source = make_source(100)
    row = pack_sequence(source, tokenizer, PACKING, 5, [7, 8])
    assert row["examples"].tolist() == [epoch_and_index(5, 7, 100)[1], epoch_and_index(5, 8, 100)[1], -1, -1]
    for k, number in enumerate((7, 8)):
        epoch, index = epoch_and_index(5, number, 100)
        alone = pack_sentence(source[index], tokenizer, PACKING, sample_rng(5, epoch, index))
        for stream in ("text", "vision", "latent"):
            mine = row[stream]["segment_ids"] == k
            for name, values in getattr(alone, stream).items():
                if name in row[stream] and name not in ("copy", "image"):
                    np.testing.assert_array_equal(row[stream][name][mine], values)
    latent, vision = row["latent"], row["vision"]
    first, second = (set(vision["image"][vision["segment_ids"] == k].tolist()) for k in (0, 1))
    assert min(first) == 0 and max(first) < min(second)
    assert latent["copy"][latent["segment_ids"] >= 0].tolist() == [i for i in range(4) for _ in range(4)]
    # Two targets of four tokens in the table, each read twice.
    assert latent["source"][:16].tolist() == [0, 1, 2, 3] * 2 + [4, 5, 6, 7] * 2


def test_padding_is_told_apart(tokenizer, make_sentence):
    row = collate([pack_sentence(make_sentence(0, 1), tokenizer, PACKING)], PACKING)
    for stream, capacity in (("text", 1000), ("vision", 28), ("latent", 32)):
        assert all(len(array) == capacity for array in row[stream].values())
    assert (row["latent"]["segment_ids"] == -1).all() and (row["latent"]["copy"] == -1).all()
    assert np.isneginf(row["latent"]["t_raw"]).all() and not row["latent"]["loss"].any()
    empty = row["text"]["segment_ids"] < 0
    assert (row["text"]["labels"][empty] == -1).all() and not row["text"]["weights"][empty].any()


def test_latent_table_runs_over_buckets_images_tokens(tokenizer, make_image):
    config = PackingConfig(
        text=200,
        vision=28,
        latent=64,
        samples=4,
        buckets=((32, 32, 2), (32, 64, 2)),
        noise_draws=1,
        reference_max_side=16,
    )
    wide = Sentence(
        (Image(make_image(0, 32, 64), role="source"), Text("x"), Target(make_image(1, 32, 32)))
    )
    samples = [pack_sentence(wide, tokenizer, config, np.random.default_rng(i)) for i in range(2)]
    row = collate(samples, config)
    source, sample = row["latent"]["source"], row["latent"]["segment_ids"]
    assert source[sample == 0].tolist() == [8 + i for i in range(8)] + [0, 1, 2, 3]
    assert source[sample == 1].tolist() == [16 + i for i in range(8)] + [4, 5, 6, 7]
    np.testing.assert_array_equal(row["pixels"]["32x64"][1], make_image(0, 32, 64))
    np.testing.assert_array_equal(row["pixels"]["32x32"][1], make_image(1, 32, 32))
    with pytest.raises(UserError, match="more than 2 images of 32x64"):
        collate([*samples, samples[0]], config)


def test_too_long_a_sample_is_named(tokenizer, make_source):
    small = dataclasses.replace(PACKING, text=60)
    with pytest.raises(UserError, match=r"sample \d+ \(task compose\) needs \d+ text tokens.*packing.text"):
        pack_window(make_source(100), tokenizer, small, 0, 0)


def test_unknown_task_is_named(tokenizer, make_source, make_sentence):
    class Source(make_source):
        def __getitem__(self, index):
            return make_sentence(index).replace(task="juggle")

    with pytest.raises(UserError, match="juggle"):
        pack_sequence(Source(10), tokenizer, PACKING, 0, [0])


@pytest.mark.parametrize("window", [256, 512])
def test_default_mixture_fills_every_stream(window):
    # Token counts as the scenes have them: buckets of 1-3, 4-5, 6-7, 8-10, 11-12 references are equally
    # likely; 24 tokens of text and plan a subject and 81 more; a tenth each without text, images, either.
    config, rng = PackingConfig(), np.random.default_rng(0)
    buckets = ((1, 3), (4, 5), (6, 7), (8, 10), (11, 12))
    fills = []
    for _ in range(4):
        needs = []
        for _ in range(window):
            low, high = buckets[rng.integers(5)]
            subjects = int(rng.integers(low, high + 1))
            context = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])  # full, no text, no images, null
            text = int(subjects * 24 + rng.normal(81, 28)) if context in (0, 2) else 0
            seen = subjects if context in (0, 1) else 0
            needs.append([text + 2 * seen + 2 * config.noise_draws, 16 * seen, 64 * config.noise_draws, 1, 1])
        needs = np.array(needs)
        rows = pack(needs, config.capacities, [""] * window, config.kinds)
        fills.append(needs[:, :3].sum(0) / len(rows) / config.capacities[:3])
    assert np.mean(fills, 0).min() >= 0.9, np.mean(fills, 0)


@pytest.mark.parametrize(
    "changes, message",
    [({"buckets": ((40, 32, 1),)}, "40x32"), ({"reference_max_side": 8}, "reference_max_side")],
)
def test_impossible_settings(changes, message):
    with pytest.raises(UserError, match=message):
        PackingConfig(**changes)


def test_given_images_share_an_area_by_their_count(tokenizer):
    """One rule for training and sampling; the sides shrink by the root of the areas' ratio."""
    buckets = ((64, 64, 4), (32, 32, 4), (16, 16, 4))
    config = dataclasses.replace(
        PACKING, buckets=buckets, noise_draws=1, reference_vae=True, reference_max_side=64,
        reference_pixels=[[1, 64 * 64], [3, 32 * 32]],
    )  # fmt: skip
    for count, side in ((1, 64), (2, 32), (3, 32), (4, 32)):
        given = [Image(np.full((128, 128, 3), n, np.uint8)) for n in range(count)]
        sentence = Sentence((*given, Target(np.zeros((64, 64, 3), np.uint8))))
        trained = pack_sentence(sentence, tokenizer, config, np.random.default_rng(1))
        sampled = pack_sentence(sentence, tokenizer, config)
        for packed, targets in ((trained, 1), (sampled, 0)):
            assert len(packed.vision["token_index"]) == count * (side // config.patch) ** 2
            assert len(packed.latent["token_index"]) == count * (side // 16) ** 2 + targets * 16
            assert sorted(p.shape[0] for _, p in packed.pixels) == sorted([side] * count + [64] * targets)


@pytest.mark.parametrize("arrangement", ["in_sentence", "image_first"])
def test_an_edit_is_trained_in_the_arrangement_that_it_is_drawn_in(arrangement, tokenizer, make_image):
    """One file of MacroData in training, and a user's call."""
    config = dataclasses.replace(PACKING, arrangement=arrangement, cfg_dropout=CfgDropout("joint", 0.0, 0.0, 0.0))
    before, other, after = (make_image(n, 32, 32) for n in range(3))
    images = [Image(before, role="source"), Image(other, subject=1)]
    prompt = "make it like <image 2>"
    trained = Sentence((*in_sentence(prompt, images), Target(after)), "edit")
    drawn = build_sentence(prompt, [other], (32, 32), before)
    rngs = np.random.default_rng(0), None
    packed = [pack_sentence(each, tokenizer, config, rng) for each, rng in zip((trained, drawn), rngs, strict=True)]
    for stream, names in (
        ("text", ("ids", "position_ids", "block_id")),
        ("vision", ("patches", "position_ids", "subject")),
    ):
        for name in names:
            trained, drawn = (getattr(each, stream)[name] for each in packed)
            np.testing.assert_array_equal(trained[: len(drawn)], drawn)
    said = tokenizer.decode(packed[1].text["ids"].tolist())
    assert said == {"in_sentence": "make it like ", "image_first": f"<image 1><image 2>{prompt}"}[arrangement]


@pytest.mark.parametrize("steps", [(), ((2, 100), (1, 50)), ((0, 100),), ((2, 0),)])
def test_areas_that_make_no_sense_are_named(steps):
    with pytest.raises(UserError, match="packing.reference_pixels"):
        PackingConfig(reference_pixels=steps)
