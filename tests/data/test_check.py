"""`python -m data.check`: finds wrong words that are planted, flags no right one, shares no code with writers."""

import ast
import dataclasses
import html
import io
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from data import check
from data.check_reader import Reader
from data.check_sight import PROTOTYPES, Sight, colour_shares, is_coloured
from macro.inputs.dataset_builder import prepare
from macro.inputs.sources import open_source
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text, Truth
from macro.utils.errors import UserError

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
KINDS = ["crate", "table", "ice cream", "dog", "bus", "fish"]
SIDE = 64
COLUMNS = {"left": 0.3, "centre": 0.5, "right": 0.7}
ROWS = {"upper": (0.25, "far back"), "lower": (0.8, "near")}
# Shades that the eye still calls by the name.
SHADES = {name: np.clip(np.array(rgb) + [6, -5, 7], 0, 255).astype(np.uint8) for name, rgb in PROTOTYPES.items()}
TRUE_SINCE = "crate"  # of every painted sample

# ---- a painted data set: blocks in rows and columns, and words about them that are right ----


def painted(index: int) -> Sentence:
    """Three blocks: two above, one below them; one of the three in two colours; all words true."""
    rng = np.random.default_rng(index)
    kinds = [TRUE_SINCE, *rng.choice(KINDS[1:], 2, replace=False).tolist()]
    colours = rng.choice(list(SHADES), 4, replace=False).tolist()
    ids, albedo = np.zeros((SIDE, SIDE), int), np.zeros((SIDE, SIDE, 3), np.uint8)
    at = [("upper", "left"), ("upper", "right"), ("lower", "centre")]
    for n, ((row, column), colour) in enumerate(zip(at, colours, strict=False), 1):
        x, y = int(COLUMNS[column] * SIDE), int(ROWS[row][0] * SIDE)
        block = slice(y - 7, y + 7), slice(x - 4 - n, x + 4 + n)
        ids[block], albedo[block] = n, SHADES[colour]
        albedo[y + 1 : y + 7, block[1]] = SHADES[colours[3]] if n == 3 else SHADES[colour]
    pixels = np.where(ids[..., None] > 0, albedo, rng.integers(150, 250, (8, 8, 3)).repeat(8, 0).repeat(8, 1))
    masks = ids[None] == np.arange(1, 4)[:, None, None]
    names = [f"{colour} {kind}" for colour, kind in zip(colours, kinds, strict=False)]
    a, b, c = kinds
    spans = [
        Text("on dotted sand, a "), Image(pixels[:9, :9].astype(np.uint8), subject=1, number=1, phrase=names[0]),
        Text(f" {names[0]} stands to the left of a "), Image(picture(index + 500), subject=2, number=2),
        Text(f" {names[1]}; the {b}, which is to the right of the {a}, is behind a "),
        Image(picture(index + 900), subject=3, number=3), Text(f" {c}."),
    ]  # fmt: skip
    cot = (
        f"three things. 1 {names[0]}: upper left, far back, left of 2. the {names[1]}: upper right, far back. "
        f"{c} at the lower centre, near, in front of the {a}."
    )
    grid = np.zeros((8, 8), np.int8)
    grid[1:3, 2], grid[1:3, 5], grid[5:7, 3:5] = 1, 2, 3
    questions = (
        (f"is the {a} left of the {b}?", True), (f"is there a {names[1]} in the image?", True),
        ("are there three things in all?", True), (f"is the {a} mostly {colours[1]}?", False),
        ("is there an umbrella in the image?", False), (f"is the {c} behind the {a}?", False),
    )  # fmt: skip
    boxes = np.array([Sight(masks, masks, (), None).box(n) for n in (1, 2, 3)], np.float32)
    told = ((1, "left of", 2), (3, "in front of", 1))
    truth = Truth(
        kinds=tuple(kinds), palettes=np.zeros((3, 3, 3), np.float32), textures=("plain",) * 3,
        colours=((colours[0],), (colours[1],), tuple(sorted((colours[2], colours[3])))), boxes=boxes, masks=masks,
        amodal=masks, visibility=np.ones(3, np.float32), depth_order=(3, 1, 2), relations=told, questions=questions,
        albedo=albedo,
    )  # fmt: skip
    return Sentence((*spans, Plan(cot, grid), Target(pixels.astype(np.uint8))), "compose", index, truth)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


def stored(folder, sentences, name="toy") -> str:
    """A built data set of these sentences."""
    prepare(name, str(folder), 0, len(sentences), lambda seed, start, n, options: sentences[start : start + n], None)
    return str(folder)


@pytest.fixture(scope="module")
def clean() -> list[Sentence]:
    return [painted(index) for index in range(12)]


@pytest.fixture
def command(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            check.command(["data.check", *map(str, arguments)])
        return left.value.code, *capsys.readouterr()

    return call


# ---- wrong words, each planted alone ----


def swapped(text: str, words: dict[str, str], rng) -> str | None:
    """One of the words, chosen by chance, in place of another; None if there is none."""
    found = list(re.finditer(r"(?<!partly )\b(" + "|".join(sorted(words, key=len, reverse=True)) + r")\b", text))
    if not found:
        return None
    hit = found[rng.integers(len(found))]
    return text[: hit.start()] + words[hit[0]] + text[hit.end() :]


def in_prompt(sentence, words, rng):
    places = [n for n, span in enumerate(sentence) if isinstance(span, Text) and swapped(span.text, words, rng)]
    if not places:
        return None
    spans, n = list(sentence), places[rng.integers(len(places))]
    spans[n] = Text(swapped(spans[n].text, words, rng))
    return sentence.replace(spans=tuple(spans))


def in_thought(sentence, words, rng):
    cot = swapped(sentence.plan.cot, words, rng) if sentence.plan is not None else None
    return None if cot is None else sentence.with_plan(Plan(cot, sentence.plan.grid))


def in_questions(sentence, rng, change):
    questions = list(sentence.truth.questions)
    places = [n for n, asked in enumerate(questions) if change(*asked, rng) is not None]
    if not places:
        return None
    n = places[rng.integers(len(places))]
    questions[n] = change(*questions[n], rng)
    return sentence.replace(truth=dataclasses.replace(sentence.truth, questions=tuple(questions)))


def another_number(text, answer, rng):
    found = re.match(r"are there (\w+) \w+ in all", text)
    if not found or not answer:
        return None
    return text.replace(found[1], NUMBERS[(NUMBERS.index(found[1]) + 1 + rng.integers(11)) % 12]), answer


def another_colour(sentence, rng):
    names = list(PROTOTYPES)
    return {name: names[(n + 1 + rng.integers(14)) % 15] for n, name in enumerate(names)}


SIDES = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
PLACES = {"upper": "lower", "lower": "upper", "far left": "far right", "far right": "far left"}
COUNTS = {f"{a} {b}": f"{NUMBERS[n - 5]} {b}" for n, a in enumerate(NUMBERS) for b in ("things", "figures", "subjects")}
NOBODY = "zebra"
PLANTS = {
    "colour_words": lambda s, rng: in_thought(s, another_colour(s, rng), rng),
    "relations": lambda s, rng: in_prompt(s, SIDES, rng),
    "questions answer": lambda s, rng: in_questions(s, rng, lambda text, answer, rng: (text, not answer)),
    "questions number": lambda s, rng: in_questions(s, rng, another_number),
    "thoughts relation": lambda s, rng: in_thought(s, SIDES, rng),
    "thoughts side": lambda s, rng: in_thought(s, PLACES, rng),
    "thoughts depth": lambda s, rng: in_thought(s, {"near": "far back", "far back": "near"}, rng),
    "thoughts number": lambda s, rng: in_thought(s, COUNTS, rng),
    "thoughts subject": lambda s, rng: in_thought(s, dict.fromkeys(s.truth.kinds, NOBODY), rng),
}


def planted(sentences, plant, count: int):
    """`count` sentences with one wrong word each; fewer where the plant finds no place."""
    rng, out = np.random.default_rng(3), []
    for turn in range(20 * count):
        if (wrong := plant(sentences[turn % len(sentences)], rng)) is not None and len(out) < count:
            out.append(wrong)
    return out


def again(sentence: Sentence, change) -> Sentence:
    """The sample once more, without its words, its target changed."""
    return Sentence((Target(change(sentence.target.pixels)),))


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).resize((70, 70)).save(buffer, "JPEG", quality=80)
    return np.array(PILImage.open(buffer))


def found_in(data: str | list[Sentence], name: str) -> set[int]:
    """The samples of a folder, or of a list, with a fault of this check."""
    if isinstance(data, str):
        [result] = check.check(data)
    else:
        check.examine_all(result := check.Result("planted", data))
    return {index for index, fault in result.faults if fault.check == name}


# ---- the tests ----


def test_no_code_of_the_writers_is_used():
    allowed = ("macro.inputs", "macro.sentence", "macro.utils", "data.check")
    for path in sorted(Path(check.__file__).parent.glob("check*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in names if name.split(".")[0] in ("macro", "data", "tests", "jax")]
            assert all(name.startswith(allowed) for name in ours), (path.name, ours)


def test_right_words_are_right_and_read(command, clean, tmp_path):
    folder = stored(tmp_path, clean)
    code, out, _ = command(folder, f"--json={tmp_path}/check.json")
    told = json.loads((tmp_path / "check.json").read_text())
    assert code == 0, told["examples"]
    for name in ("colour_words", "relations", "questions", "thoughts", "duplicates", "layouts", "boxes", "markers"):
        assert told[name]["checked"] >= 12 and told[name]["wrong"] == 0, name
        assert told[name].get("read", 1) == 1, name
    assert set(told["not_checked"]) == {"splits"} and "--against" in out
    assert (tmp_path / "check.html").is_file()


@pytest.mark.parametrize("name", PLANTS)
def test_planted_words_are_found(clean, tmp_path, name):
    wrong = planted(clean, PLANTS[name], 24)
    assert found_in(stored(tmp_path, wrong), name.split()[0]) == set(range(24))


def test_a_wrong_set_is_shown_and_exits_with_1(command, clean, tmp_path):
    stored(tmp_path, planted(clean, PLANTS["relations"], 3))
    code, out, _ = command(tmp_path, f"--page={tmp_path}/wrong.html", f"--json={tmp_path}/wrong.json")
    told = json.loads((tmp_path / "wrong.json").read_text())
    assert code == 1 and told["relations"]["wrong"] == 3 == told["sets"]["toy/1.0.0"]["relations"]["wrong"]
    page = (tmp_path / "wrong.html").read_text()
    assert html.escape(told["examples"][0]["words"]) in page and page.count("data:image") > 3 and "<script" not in page


def test_words_of_another_world_are_told_from_wrong_ones():
    """Ways to say things that no writer here uses."""
    reader = Reader(KINDS)
    for text, due in {
        "The Dog and the bus sit beside the table.": {("dog", "next to", "table"), ("bus", "next to", "table")},
        "Behind the dog there is a red and blue bus, which is left of the crate.": {
            ("bus", "behind", "dog"), ("bus", "left of", "crate")},
        "From left to right: a dog, a bus and a crate.": {("dog", "left of", "bus"), ("bus", "left of", "crate")},
        "Between the dog and the bus stands a crate.": {("crate", "between", "dog bus")},
        "The dog stands on the table and to the right of the bus and the crate.": {
            ("dog", "on", "table"), ("dog", "right of", "bus"), ("dog", "right of", "crate")},
        "Buses are driving on. Two dogs walk away from the crate on green grass under a blue sky.": set(),
        "now show its back right view.": set(),
    }.items():  # fmt: skip
        clauses = reader.read(text)
        said = {
            (s.who.kind, s.name, " ".join(m.kind for m in s.other) if isinstance(s.other, tuple) else s.other.kind)
            for clause in clauses
            for s in clause.statements
            if s.who is not None
        }
        assert said == due, text
    assert reader.read("a red and blue bus")[0].mentions[0].colours == ("red", "blue")
    assert reader.read("the dog peers left, right and behind")[0].unread == 1  # "behind" whom?


def test_one_colour_is_half_of_the_pixels_and_two_are_the_largest():
    def painted(**counts):
        pixels = np.repeat([PROTOTYPES[name] for name in counts], list(counts.values()), 0)
        return colour_shares(pixels.astype(np.uint8))

    shares = painted(red=251, blue=150, white=99)
    assert is_coloured(shares, ("blue",)) is False and is_coloured(painted(red=60, blue=40), ("red",)) is True
    assert is_coloured(shares, ("red",)) is None, "within the tolerance"
    assert is_coloured(shares, ("blue", "red")) is True and is_coloured(shares, ("red", "white")) is False
    assert is_coloured(shares, ("red", "red")) is False
    between = (np.array(PROTOTYPES["red"]) + PROTOTYPES["brown"]) // 2
    shares = colour_shares(np.tile(between.astype(np.uint8), (5, 1)))
    assert is_coloured(shares, ("red",)) is is_coloured(shares, ("brown",)) is None, "both may be said of it"
    for name, shade in SHADES.items():
        assert colour_shares(np.tile(shade, (5, 1))).least == {name: 1.0}


def test_what_is_not_stored_is_not_checked_and_said(command, clean, tmp_path):
    blind = [one.replace(truth=dataclasses.replace(one.truth, albedo=None)) for one in clean[:4]]
    none = [one.replace(truth=None) for one in clean]
    wrong = [one.with_plan(Plan(one.plan.cot.replace("1 ", "3 "), one.plan.grid)) for one in none[:2]]
    for name, sentences, missing in (("blind", blind, {"colour_words"}), ("none", none, set(check.CHECKS[:4]))):
        code, out, _ = command(stored(tmp_path / name, sentences), f"--json={tmp_path}/{name}.json")
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert code == 0 and missing <= set(told["not_checked"]) and "not checked" in out
        assert told["colour_words"]["checked"] == 0 < told["thoughts"]["checked"]
    assert found_in(stored(tmp_path / "wrong", wrong), "thoughts") == {0, 1}, "a thought against its grid"


def test_duplicates_and_splits(command, clean, tmp_path):
    both = clean[:6] + [again(one, as_jpeg) for one in clean[:3]] + [again(clean[3], np.copy)]
    assert found_in(stored(tmp_path / "twice", both), "duplicates") == {6, 7, 8, 9}
    ours, theirs = stored(tmp_path / "train", clean[:6]), stored(tmp_path / "eval", clean[6:])
    assert command(ours, f"--against={theirs}")[0] == 0
    assert [one.split for one in check.check(ours)] == ["train"]
    first, second = check.check(ours)[0], check.check(theirs)[0]
    assert not list(check.splits_of([first, second]))
    second.split = "eval"
    assert list(check.splits_of([first, second])) == [(first, second)], "splits below one folder are compared"
    mixed = [*clean[6:9], clean[0], again(clean[1], as_jpeg)]
    code, _, _ = command(ours, f"--against={stored(tmp_path / 'mixed', mixed)}", f"--json={tmp_path}/splits.json")
    told = json.loads((tmp_path / "splits.json").read_text())
    assert code == 1 and told["splits"] == {"checked": 6, "wrong": 2}


def test_broken_and_missing_files(command, clean, tmp_path):
    folder = Path(stored(tmp_path / "gone", clean[:4]))
    [shard] = folder.glob("toy/1.0.0/*.array_record*")
    shard.unlink()
    code, out, _ = command(folder, f"--json={tmp_path}/gone.json")
    told = json.loads((tmp_path / "gone.json").read_text())
    assert code == 1 and told["files"]["wrong"] and shard.name in {one["words"] for one in told["examples"]}
    published = tmp_path / "published"
    published.mkdir()
    (published / "a.json").write_text(json.dumps({"task": "customization", "idx": 0, "prompt": "an owl"}))
    (published / "b.json").write_text("{")
    code, _, _ = command(published, f"--json={tmp_path}/json.json")
    assert code == 1 and json.loads((tmp_path / "json.json").read_text())["files"] == {"checked": 2, "wrong": 2}


def test_mistakes_in_the_command(command, tmp_path):
    for arguments, what in (
        ((tmp_path / "nowhere",), "there is no such folder"),
        ((tmp_path,), "holds no data set"),
        ((tmp_path, "--num=-1"), "must be at least 0"),
    ):
        code, _, err = command(*arguments)
        assert code == 2 and what in err


def test_a_marker_without_its_image_is_found(clean, tmp_path):
    wrong = in_prompt(clean[0], {"dotted sand": "dotted <image 7> sand"}, np.random.default_rng(0))
    assert found_in(stored(tmp_path, [wrong, clean[1]]), "markers") == {0}


# ---- on rendered scenes ----


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> list[Sentence]:
    """96 samples of a seed that nothing else uses."""
    folder = str(tmp_path_factory.mktemp("music"))
    build = [sys.executable, "-m", "data.build", "music", "--num=96", "--seed=990017", f"--out={folder}"]
    subprocess.run(build, cwd=Path(check.__file__).parents[1], check=True, capture_output=True)
    source = open_source(folder)
    return [source[index] for index in range(len(source))]


@pytest.mark.slow
def test_a_rendered_set_is_clean_and_read(music):
    check.examine_all(result := check.Result("music", music))
    assert not result.faults
    assert len(result.prints) == 96
    for name, counts in result.counts().items():
        assert counts.get("read", 1) > 0.9, name


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTS)
def test_98_of_100_planted_in_a_rendered_set_are_found(music, name):
    wrong = planted(music, PLANTS[name], 100)
    assert len(wrong) == 100 and len(found_in(wrong, name.split()[0])) >= 98


@pytest.mark.slow
def test_98_of_100_duplicates_in_a_rendered_set_are_found(music):
    twice = music + [again(music[n], as_jpeg) for n in np.random.default_rng(1).integers(96, size=100).tolist()]
    assert len(found_in(twice, "duplicates") - set(range(96))) >= 98


def test_counts_add_up(clean, tmp_path):
    stored(tmp_path, clean[:2], "one")
    stored(tmp_path, clean[2:5], "two")
    results = check.check(str(tmp_path), num=2)
    assert [len(result.prints) for result in results] == [2, 2]
    told = check.report(results, False)
    summed = sum((result.checked for result in results), Counter())
    assert all(told[name]["checked"] == summed[name] for name in check.CHECKS)
    with pytest.raises(UserError, match="no such folder"):
        check.check(str(tmp_path / "three"))
