"""Shards on disk: whole or not at all, the same bytes whoever writes them, and what is told of them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from data.shards import Recipe, about, bucket_of, dead_letters, load, make_shard, note_spent, provider_of
from macro.engines import core
from macro.inputs import shards as files
from macro.inputs.dataset_builder import build
from macro.inputs.serialization import encode_sentence
from macro.inputs.shards import Shards
from macro.sentence.spans import Image, Sentence, Text
from macro.utils.errors import UserError
from tests.data import toy

ROOT = Path(__file__).resolve().parents[2]


def recipe(folder, num=20, size=8, **options):
    shards = Shards(str(folder), num, size)
    return Recipe(toy.Builder.engine, toy.Options(**options), toy.PROVIDER, 3, shards)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 70))
def test_places_of_all_shards_are_all_places(num, size):
    shards = Shards("nowhere", num, size)
    places = [index for number in range(len(shards)) for index in shards.places(number)]
    assert places == list(range(num)) and all(0 < len(shards.places(n)) <= size for n in range(len(shards)))
    assert shards.missing() == list(range(len(shards)))


def test_a_shard_is_there_when_all_of_it_is(tmp_path):
    shards = recipe(tmp_path).shards
    for number in (2, 0):
        make_shard(recipe(tmp_path), number)
    assert shards.missing() == [1]
    for part in ("array_record", "json", "dead.jsonl"):
        path = shards.path(2, part)
        data = path.read_bytes()
        path.unlink()
        assert shards.missing() == [1, 2]
        path.write_bytes(data)
    shards.clear()
    assert not tmp_path.exists()
    shards.clear()  # and once more is no error


def test_another_process_writes_the_same_bytes(tmp_path):
    """Not so with TFDS's own serialiser: it orders features as the process's hashes fall."""
    code = "from tests.data.test_shards import *; make_shard(recipe(sys.argv[1]), 1)"
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], cwd=ROOT, env=environment, check=True)
    make_shard(recipe(tmp_path / "here"), 1)
    here = contents(tmp_path / "here")
    assert set(here) == {"00001.array_record", "00001.json", "00001.dead.jsonl"}
    assert contents(tmp_path / "1") == here == contents(tmp_path / "2")


class Bucket(MemoryFileSystem):
    """Stands for Google's storage: objects in memory."""

    protocol = "gs"
    store = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")


def test_out_may_be_a_bucket(tmp_path, monkeypatch):
    """Its objects are those of a local build; nothing aside is left."""
    registry = importlib.import_module("fsspec.registry")  # `fsspec.registry` itself is a dictionary
    monkeypatch.setitem(registry._registry, "gcs", Bucket)
    for out in ("gs://bucket/sets", str(tmp_path)):
        build(toy.Builder, out, 3, 9, toy.Options(), shard=4)
    local = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name.removeprefix("/bucket/sets/") for name in Bucket.store} == set(local)
    for name in local.keys() - {"toys-summary.json"}:
        assert Bucket.store[f"/bucket/sets/{name}"].getvalue() == local[name].read_bytes()
    build(toy.Builder, "gs://bucket/sets", 3, 9, toy.Options(), shard=4)  # is kept
    with pytest.raises(UserError, match="of seed 3, not 4"):
        build(toy.Builder, "gs://bucket/sets", 4, 9, toy.Options(), shard=4)


def test_a_shard_that_fails_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        make_shard(recipe(tmp_path / "a", broken=9), 1)
    assert not (tmp_path / "a").exists()
    encoded = []

    def encode_but_one(sentence):
        encoded.append(sentence)
        if len(encoded) == 3:
            raise KeyboardInterrupt  # in the midst of a file
        return encode_sentence(sentence)

    monkeypatch.setattr(files, "encode_sentence", encode_but_one)
    with pytest.raises(KeyboardInterrupt):
        recipe(tmp_path / "b").shards.write_samples(0, [Sentence((Text("x"),))] * 5, {})
    assert not list((tmp_path / "b").iterdir())


def test_what_is_told_is_what_there_is(tmp_path):
    made = core.make(toy.ENGINE, None, toy.Options(), 3, range(24))
    told = about(made)
    make_shard(recipe(tmp_path, 24, 24), 0)
    shards = recipe(tmp_path, 24, 24).shards
    assert shards.about(0) == {"samples": len(made.samples)} | told
    assert shards.dead(0) == dead_letters(made.dead)
    letters = shards.dead(0)
    assert [(one["index"], one["attempt"]) for one in letters] == sorted((d.index, d.attempt) for d in made.dead)
    assert {one["step"] for one in letters} == {"draw", "area"}
    assert told["filters"]["area"]["dropped"] + told["filters"]["draw"]["dropped"] == len(letters)
    assert sum(sum(buckets.values()) for buckets in told["tasks"].values()) == len(made.samples)
    counts = np.array([[int(n), times] for n, times in told["references"].items()])
    assert counts.prod(1).sum() == sum(len(sentence.images) for sentence in made.samples)


@pytest.mark.parametrize(
    ("count", "bucket"), [(0, "0"), (1, "1-3"), (3, "1-3"), (4, "4-5"), (5, "4-5"), (7, "6-7"), (8, ">=8"), (12, ">=8")]
)
def test_buckets(count, bucket):
    images = (Image(np.zeros((2, 2, 3), np.uint8)),) * count
    assert bucket_of(Sentence(images)) == bucket
    assert bucket_of(Sentence(images, notes={"bucket": "other"})) == "other"


def test_spending_is_added_up_beside_the_shards(tmp_path):
    class Paid:
        def spent(self):
            return {"asked": 3, "tokens_in": 10}

    free, paid = recipe(tmp_path / "free"), recipe(tmp_path / "paid")
    for number in (0, 1):
        make_shard(free, number)
        make_shard(paid, number)
        note_spent(free, None)
        note_spent(paid, Paid())
    assert free.shards.spent() == {} == recipe(tmp_path / "none").shards.spent()
    assert paid.shards.spent() == {"asked": 6, "tokens_in": 20}
    assert free.shards.missing() == paid.shards.missing() == [2]
    ours, theirs = contents(tmp_path / "free"), contents(tmp_path / "paid")
    assert ours.items() <= theirs.items() and len(theirs) == len(ours) + 2


def test_a_provider_is_loaded_once_in_a_process():
    toy.loads.clear()
    ours = [toy.ProviderSpec("toy", "tests.data.toy:provider", toy.Answers(base)) for base in (7, 8)]
    for _ in range(3):
        for provider in ours:
            assert provider_of(provider) is None
    assert toy.loads == [toy.Answers(7), toy.Answers(8)]
    assert provider_of(toy.ProviderSpec("none")) is None
    assert load("tests.data.toy:ENGINE") is toy.ENGINE
