"""Folders of JSON samples, and mixtures in given proportions."""

import collections
import json

import numpy as np
import pytest

from macro.inputs.sources import JsonFolderSource, MixtureSource
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils import images as image_io
from macro.utils.errors import UserError


def write(folder, idx, images=1, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(idx)
    names = [f"{idx}_{n}.png" for n in range(images + 1)]
    for n, name in enumerate(names):
        image_io.save(folder / name, rng.integers(0, 256, (20 + n, 30, 3), np.uint8))
    record = {"task": "spatial", "idx": idx, "prompt": "A view.", "input_images": names[1:], "output_image": names[0]}
    (folder / f"{idx:03d}.json").write_text(json.dumps(record | fields))


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for idx in (2, 0, 1):
        write(tmp_path / f"part{idx % 2}", idx, images=idx)
    files = JsonFolderSource(tmp_path)
    assert [files[i].idx for i in range(len(files))] == [0, 2, 1]
    assert [len(files[i].images) for i in range(3)] == [0, 2, 1]


def test_an_outline_has_everything_but_the_images(tmp_path):
    write(tmp_path, 1, images=2)
    files = JsonFolderSource(tmp_path)
    whole, outline = files[0], files.outline(0)
    for ours, theirs in zip(whole, outline, strict=True):
        if isinstance(ours, Text):
            assert ours == theirs
        else:
            assert isinstance(ours, Image | Target) and ours.pixels.shape == theirs.pixels.shape
            assert ours.pixels.any() and not theirs.pixels.any()


def test_an_empty_folder_and_a_sample_without_target_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no \.json files are there"):
        JsonFolderSource(tmp_path)
    write(tmp_path, 0, output_image=None)
    with pytest.raises(UserError, match="000.json: has no output_image"):
        JsonFolderSource(tmp_path).outline(0)


@pytest.mark.parametrize(
    ("sizes", "weights", "counts"),
    [
        ((10, 10), (1, 1), (10, 10)),
        ((10, 10), (2, 3), (10, 15)),
        ((100, 7), (0.9, 0.1), (100, 12)),
        ((3, 500), (0.5, 0.5), (500, 500)),
        ((7,), (0.3,), (7,)),
    ],
)
def test_a_mixture_holds_every_sample_in_the_proportions_asked_for(sizes, weights, counts):
    parts = [[Sentence((Text(f"{part}"),), idx=i) for i in range(size)] for part, size in enumerate(sizes)]
    mixture = MixtureSource(parts, weights)
    seen = collections.Counter((int(mixture[i].text), mixture[i].idx) for i in range(len(mixture)))
    assert set(seen) == {(part, i) for part, size in enumerate(sizes) for i in range(size)}
    for part, count in enumerate(counts):
        of_part = [n for (number, _), n in seen.items() if number == part]
        assert sum(of_part) == count and max(of_part) - min(of_part) <= 1
    with pytest.raises(IndexError):
        mixture[len(mixture)]


def test_a_mixture_asks_its_parts_for_outlines_where_they_have_them(tmp_path):
    write(tmp_path, 0)
    plain = [JsonFolderSource(tmp_path)[0]]
    mixture = MixtureSource([JsonFolderSource(tmp_path), plain], [1, 1])
    assert not mixture.outline(0).target.pixels.any() and mixture.outline(1).target.pixels.any()
