"""Which files there are, in which order items go through them, and what a folder without material says."""

import importlib
import os
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.engines.material import CATEGORIES, FolderMaterial, Options, files
from macro.engines.material.types import MaterialSource
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError
from tests.engines import exact


def image_of(number, size=(6, 8)):
    return np.full((*size, 3), number, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven photos, two pooled images; image n is all n."""
    root = tmp_path_factory.mktemp("material")
    for n in range(6):
        image_io.save(root / "photos" / ("a" if n % 2 else "b/c") / f"{n}.png", image_of(n))
    image_io.save(root / "photos/LAST.PNG".replace("PNG", "png"), image_of(6))
    (root / "photos/notes.txt").write_text("not an image")
    (root / "photos/.hidden.png").write_bytes(b"")
    for n, category in enumerate(("human", "style"), 20):
        image_io.save(root / "pool" / category / "one.png", image_of(n))
    return root


def test_it_is_a_source(folder):
    assert isinstance(FolderMaterial(folder), MaterialSource)


def test_every_file_comes_once_a_round_in_an_order_of_the_seeds_own(folder):
    material = FolderMaterial(folder)
    orders = {}
    for seed in range(6):
        shown = [int(material.photo(seed, index).pixels[0, 0, 0]) for index in range(14)]
        assert sorted(shown[:7]) == sorted(shown[7:]) == list(range(7))
        orders[seed] = shown
    assert len({tuple(order[:7]) for order in orders.values()}) > 1
    assert any(order[:7] != order[7:] for order in orders.values())
    assert [int(FolderMaterial(folder).photo(2, index).pixels[0, 0, 0]) for index in range(14)] == orders[2]


def test_an_image_says_its_file(folder):
    photo = FolderMaterial(folder).photo(0, 0)
    assert photo.scene is None
    np.testing.assert_array_equal(image_io.load(photo.path), photo.pixels)


def test_pools_go_by_category(folder):
    material = FolderMaterial(folder)
    assert material.pooled("human", 0, 5).pixels.max() == 20
    assert material.pooled("style", 3, 0).pixels.max() == 21
    with pytest.raises(UserError, match="no material for pool/cloth; put files .*into .*pool/cloth"):
        material.pooled("cloth", 0, 0)
    with pytest.raises(UserError, match="category 'cat': there are human, cloth"):
        material.pooled("cat", 0, 0)


@pytest.mark.parametrize("kind", ["clip", "story", "turntable", "panorama"])
def test_no_material_of_a_kind_says_where_it_would_belong(folder, kind):
    with pytest.raises(UserError, match=r"no material for \w+; put files \(\.\w+.*\) into "):
        getattr(FolderMaterial(folder), kind)(0, 0)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such folder of material"):
        FolderMaterial(tmp_path / "nowhere")


def test_a_folder_without_order_and_a_single_file_are_material_too(tmp_path):
    image_io.save(tmp_path / "x.png", image_of(5))
    assert FolderMaterial(tmp_path).photo(0, 9).pixels.max() == 5
    assert FolderMaterial(tmp_path / "x.png").photo(1, 3).pixels.max() == 5
    with pytest.raises(UserError, match="no material for videos"):
        FolderMaterial(tmp_path / "x.png").clip(0, 0)
    for category in CATEGORIES:  # nobody has said what they show
        with pytest.raises(UserError, match="no material for pool"):
            FolderMaterial(tmp_path).pooled(category, 0, 0)


def test_a_copy_lists_for_itself(folder):
    material = FolderMaterial(folder, Options(longest=4))
    before = material.photo(1, 2)
    data = pickle.dumps(material)
    assert b".png" not in data
    after = pickle.loads(data).photo(1, 2)
    assert after.path == before.path and after.pixels.shape == (3, 4, 3)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda data: b"", "not an image that can be read"),
        (lambda data: b"GIF89a nonsense", "not an image|broken"),
        (lambda data: data[: len(data) // 2], "broken or cut off"),
    ],
)
def test_a_broken_image_is_a_fault(tmp_path, spoil, reason):
    image_io.save(tmp_path / "x.png", np.random.default_rng(0).integers(255, size=(40, 40, 3), dtype=np.uint8))
    (tmp_path / "x.png").write_bytes(spoil((tmp_path / "x.png").read_bytes()))
    with pytest.raises(ItemError, match=rf"x\.png: .*({reason})") as caught:
        FolderMaterial(tmp_path).photo(0, 0)
    assert "\n" not in str(caught.value)


def test_an_image_that_has_gone_is_a_fault(tmp_path):
    image_io.save(tmp_path / "x.png", image_of(1))
    material = FolderMaterial(tmp_path)
    material.photo(0, 0)
    (tmp_path / "x.png").unlink()
    with pytest.raises(ItemError, match="no such file"):
        material.photo(0, 0)


def test_images_are_scaled_down_but_not_up(tmp_path):
    image_io.save(tmp_path / "x.png", image_of(9, (30, 60)))
    assert FolderMaterial(tmp_path, Options(longest=20)).photo(0, 0).pixels.shape == (10, 20, 3)
    assert FolderMaterial(tmp_path, Options(longest=60)).photo(0, 0).pixels.shape == (30, 60, 3)
    assert files.fitted(image_of(1, (1, 900)), 9).shape == (1, 9, 3)


@pytest.mark.parametrize(
    "wrong, message",
    [({"rate": 0.0}, "rate=0.0"), ({"longest": -1}, "longest=-1"), ({"seconds": float("nan")}, "seconds=nan"),
     ({"panorama": 33}, "panorama=33 must be even"), ({"up": "x"}, "up='x' must be 'y' or 'z'")],
)  # fmt: skip
def test_options_are_checked(wrong, message):
    with pytest.raises(UserError, match=message):
        Options(**wrong)


@pytest.mark.parametrize(
    "library, kind, name",
    [("cv2", "clip", "x.mp4"), ("trimesh", "turntable", "x.ply"), ("mitsuba", "turntable", "x.obj")],
)
def test_a_library_that_is_missing_is_named_with_the_mend(tmp_path, monkeypatch, library, kind, name):
    (tmp_path / name).write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"is missing; pip install 'macro-compose\[engine\]'"):
        getattr(FolderMaterial(tmp_path), kind)(0, 0)


# ---- lists and orders ----


def test_names_are_sorted_and_links_to_folders_not_entered(tmp_path):
    for name in ("b.png", "a/z.png", "a/b/y.png", "c/.cache/x.png", "a.png"):
        image_io.save(tmp_path / name, image_of(1))
    os.symlink(tmp_path, tmp_path / "a" / "round")
    assert files.find("photos", tmp_path, files.IMAGES).names == ("a/b/y.png", "a/z.png", "a.png", "b.png")


def test_of_too_many_files_the_first_are_taken(tmp_path, monkeypatch):
    for n in range(9):
        image_io.save(tmp_path / f"{n % 2}" / f"{n}.png", image_of(1))
    monkeypatch.setattr(files, "MOST", 6)
    with pytest.warns(UserWarning, match="more than 6 files; the first 6 are used"):
        names = files.find("photos", tmp_path, files.IMAGES).names
    assert names == ("0/0.png", "0/2.png", "0/4.png", "0/6.png", "0/8.png", "1/1.png")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 200), st.integers(0, 3))
def test_places_are_a_permutation_in_every_round(seed, count, turn):
    places = [files.place(seed, "photos", turn * count + n, count) for n in range(count)]
    assert sorted(places) == list(range(count))


def test_places_look_random():
    count = 500
    order = np.array([files.place(7, "photos", n, count) for n in range(count)])
    others = [(8, "photos", 0), (7, "videos", 0), (7, "photos", count)]
    for seed, kind, start in others:
        other = np.array([files.place(seed, kind, start + n, count) for n in range(count)])
        assert abs(np.corrcoef(order, other)[0, 1]) < 0.17 and (order == other).sum() < 8
    assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.17
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.17
    assert len(set(np.diff(order))) > 300


def test_places_of_a_great_many_take_no_time():
    places = {files.place(0, "photos", n, 10**12) for n in range(1000)}
    assert len(places) == 1000 and all(0 <= place < 10**12 for place in places)


# ---- splits ----


def test_no_file_is_in_two_splits_and_content_alone_decides(tmp_path):
    for n in range(60):
        image_io.save(tmp_path / "photos" / f"{n}.png", np.random.default_rng(n).integers(0, 255, (4, 4, 3), np.uint8))
    image_io.save(tmp_path / "photos/sub/copy.png", image_io.load(tmp_path / "photos/7.png"))
    options = Options(eval_share=0.3)
    found = {split: FolderMaterial(tmp_path, options, split)._files("photos").names for split in ("train", "eval")}
    assert sorted(found["train"] + found["eval"]) == sorted(FolderMaterial(tmp_path)._files("photos").names)
    assert not set(found["train"]) & set(found["eval"]) and 5 < len(found["eval"]) < 32
    for names in found.values():
        assert ("7.png" in names) == ("sub/copy.png" in names)
    again = pickle.loads(pickle.dumps(FolderMaterial(tmp_path, options, "eval")))
    assert again._files("photos").names == found["eval"]
    with pytest.raises(UserError, match="train and eval"):
        FolderMaterial(tmp_path, options, "test")


def test_a_split_without_files_is_a_line(folder):
    with pytest.raises(UserError, match=r"none of the 7 files for photos falls to split eval.*eval_share=0"):
        FolderMaterial(folder, Options(eval_share=0.0), "eval").photo(0, 0)


class Counted:
    """Notes which items are taken, and has none."""

    def __init__(self):
        self.taken = {}

    def _take(self, kind, seed, index):
        self.taken.setdefault(kind, []).append(index)
        raise ItemError("nothing here")

    def __getattr__(self, kind):
        if kind == "pooled":
            return lambda category, seed, index: self._take(category, seed, index)
        return lambda seed, index: self._take(kind, seed, index)


@pytest.mark.parametrize("name", ["macrodata", "inset"])
def test_first_attempts_use_every_item_before_one_is_used_twice(name):
    engine = importlib.import_module(f"macro.engines.{name}").ENGINE
    source, options = Counted(), engine.options()
    candidates = [engine.start(3, index, 0, options) for index in range(800)]
    provider = exact.provider().replace(sources=source)
    for step in engine.steps:  # those that take material drop every candidate
        candidates = step.run(candidates, provider, options)
        candidates = [c for c in candidates if c.dropped is None]
        if not candidates:
            break
    kinds = {"macrodata": {"clip", "story", "turntable", "panorama"}, "inset": {"photo", "clip"}}[name]
    assert kinds <= set(source.taken)
    for kind in kinds:
        assert sorted(source.taken[kind]) == list(range(len(source.taken[kind]))), kind
