"""The page that shows data: whole in itself, escaped, complete, bounded; and the mistakes around it."""

import json
import re
import shutil

import numpy as np
import pytest

from data import browse, gallery, statistics
from macro.inputs.dataset_builder import prepare
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.config import run
from macro.utils.errors import UserError

EVIL = "<script>alert('x')</script> \"quoted\" & 'single'"
GRID = np.kron([[0, 1], [2, 2]], np.ones((4, 4))).astype(np.int8)
REGIONS = [
    {"label": 'a "dog" <b>', "box": [0.1, 0.1, 0.4, 0.4], "score": 1.0},
    {"label": "x", "box": [0, 0, 1, 0.5]},
    {"label": "elsewhere", "box": [0, 0, 0, 0]},
]
VERDICTS = [
    {"filter": "area<i>", "kept": True, "value": 0.0625, "reason": ""},
    {"filter": "judge", "kept": False, "value": 3.5, "reason": EVIL},
]


def image(seed, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make(seed, start, count, options):
    """Sentences of two buckets by turns, with everything that a page can show."""
    out = []
    for index in range(start, start + count):
        spans = (
            Text(f"put {options['words']} "),
            Image(image(index), subject=1, number=1, phrase=f"the {EVIL}"),
            Text(" by "),
            Image(image(index + 1000, 20, 300), subject=2, number=2),
            Plan(f"think {EVIL.replace('</script>', '')}".replace("<", "(") if index % 2 else "a & b", GRID),
            Target(image(index + 2000, 300, 600)),
            Text("afterwards"),
        )
        notes = {"engine": "toy 1", "bucket": ["1-3", "4-5"][index % 2], "attempt": 2, "caption": EVIL}
        notes |= {"regions": REGIONS, "verdicts": VERDICTS}
        out.append(Sentence(spans, "compose", index, None, notes))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    prepare("toy", str(folder), 0, 12, make, {"words": EVIL})
    (folder / "toy-summary.json").write_text(json.dumps({"filters": {"area<i>": {"kept": 12, "dropped": 1234}}}))
    letters = [{"step": "judge", "reason": EVIL}] * 3 + [{"step": "area", "reason": "small"}]
    (folder / "toy-dead.jsonl").write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    files = folder / "published" / "customization" / "1-3"
    for index in range(3):
        first = Image(image(index), subject=1, phrase="owl")
        spans = Text("an "), Image(first.pixels, subject=1, number=1, phrase="owl"), Text(" owl"), Target(image(9))
        write_macrodata(files / f"{index}.json", Sentence(spans, "customization", index))
    inset = {"task": "compose", "idx": 7, "caption": "an owl", "map": {"owl": 1}, "images": ["0_input1.png"]}
    (files / "inset.json").write_text(json.dumps(inset | {"output_image": "0_output.png"}))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    browse.browse(str(folder), 2, 0, str(folder / "page.html"))
    return (folder / "page.html").read_text()


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(page):
    sources = re.findall(r"""\s(?:src|href)\s*=\s*["']([^"']{0,30})""", page)
    assert sources and all(source.startswith(("data:image/jpeg;base64,", "#s")) for source in sources)
    assert not re.search(r"url\(|@import|<link|https?://|<script", page)
    assert not re.search(r"\son\w+=", re.sub(r"data:image/jpeg;base64,[^\"]*", "", page))


def test_all_words_are_escaped(page):
    """What is no tag of ours must not be a tag: with ours taken out, no angle bracket is left."""
    tags = "html head meta title body main input br header p h1 h2 small nav div label a section figure table tr th td"
    tags += " i span figcaption article img b svg rect text g path blockquote details summary pre"
    ours = rf"</?(?:{tags.replace(' ', '|')})(?:\s[^<>]*)?>"
    bare = re.sub(r"<style>.*?</style>|<!doctype html>", "", page, flags=re.S)
    assert "<b>" not in bare and "<i>" not in bare and "<script" not in bare
    assert not re.search("[<>]", re.sub(ours, "", bare))
    assert bare.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &#34;quoted&#34; &amp;") >= 12


def test_every_sample_is_shown_whole(page):
    assert len(page.split("<article>")) - 1 == 2 + 2 + 2 + 1  # two of each bucket, and the one INSET file
    built = next(card for card in page.split("<article>") if "toy 1" in card)
    assert built.count('class="word"') == 2 and "then: afterwards" in built
    assert "attempt 3" in built and "a &amp; b" in built
    assert "area&lt;i&gt; 0.0625" in built and 'class="dropped"' in built and "judge 3.5" in built
    assert "caption" in built and "2 x</text>" in built
    assert "elsewhere" not in built
    assert built.count("<rect") == 48 + 2  # cells of the layout, and two boxes
    assert 'viewBox="0 0 100.00 50.00"' in built and 'x="10.00" y="5.00" width="30.00" height="15.00"' in built
    assert "<td>the &lt;script&gt;" in built and "&lt;image 1&gt;</td>" in built
    assert "<td>owl</td>" in page.split("<article>")[-3] + page.split("<article>")[-1]


def test_statistics_stand_at_the_top(page):
    assert page.index(">toy</a>") < page.index(">published (JSON)</a>")
    head = page.split('<section id="s0"')[1].split("</section>")[0]
    assert "12 samples" in head
    assert "<td>compose</td><td>1-3</td><td>6</td>" in head and "<td>4-5</td><td>6</td>" in head
    assert "<td>area&lt;i&gt;</td><td>12</td><td>1,234</td>" in head
    assert head.index("quoted&#34; &amp; &#39;single&#39;</td><td>3</td>") < head.index("<td>small</td><td>1</td>")
    assert re.search(r'title="12"><i style="height:100%"></i><span>2</span>', head)  # all have two references
    assert "area of a subject" in head


def test_numbers_are_counted_as_they_are(folder, tmp_path):
    (built,) = [one for one in browse.data_sets(str(folder)) if one.name == "toy"]
    outlines = [(index, built.samples.outline(index)) for index in range(12)]
    found = statistics.statistics_of(outlines, 12, tmp_path / "none", tmp_path / "none")
    assert found.references == {2: 12} and found.subjects == {3: 12} and found.areas == {0.01: 12, 0.1: 12, 0.5: 12}
    assert found.places == {("compose", "1-3"): [0, 2, 4, 6, 8, 10], ("compose", "4-5"): [1, 3, 5, 7, 9, 11]}
    assert not found.filters and not found.dead


def test_buckets_stand_in_the_order_of_their_numbers(tmp_path):
    outlines = [
        (n, Sentence((Text("x"),), task, n, None, {"bucket": bucket}))
        for n, (task, bucket) in enumerate([("b", "11-12"), ("b", "4-5"), ("b", ">=8"), ("a", "move"), ("a", "add")])
    ]
    found = statistics.statistics_of(outlines, 5, tmp_path / "none", tmp_path / "none")
    assert [bucket for _, bucket in found.places] == ["add", "move", "4-5", ">=8", "11-12"]


def test_the_seed_chooses_and_the_same_one_chooses_alike(folder, tmp_path):
    pages = []
    for seed in (0, 0, 1):
        browse.browse(str(folder), 2, seed, str(tmp_path / "page.html"))
        pages.append((tmp_path / "page.html").read_text())
    assert pages[0] == pages[1]
    assert pages[0].replace("seed 0", "") != pages[2].replace("seed 1", "")


def test_images_are_shrunk_and_samples_bounded(folder, page, monkeypatch):
    assert "at most 256 pixels a side" in page
    assert len(page) < 500_000  # whole, its 300 x 600 targets of noise alone would take 4 x 720 kB
    monkeypatch.setattr(browse, "MOST", 4)
    shown, _ = browse.browse(str(folder), 8, 0, str(folder / "few.html"))
    assert shown == 4 and "1 of each task and bucket" in (folder / "few.html").read_text()


def test_very_large_sets_are_counted_at_even_distances(monkeypatch):
    monkeypatch.setattr(browse, "LOOKED", 5)
    assert browse.looked_at(range(3)) == [0, 1, 2]
    assert browse.looked_at(range(101)) == [0, 25, 50, 75, 100]


def test_the_published_layout_alone_is_read_too(folder, tmp_path):
    shown, _ = browse.browse(str(folder / "published"), 8, 0, str(tmp_path / "page.html"))
    assert shown == 4
    assert "no image" not in (tmp_path / "page.html").read_text()


def test_json_that_a_build_wrote_beside_its_records_is_not_shown_twice(folder, tmp_path):
    (tmp_path / "macrodata").mkdir()
    shutil.copytree(next(folder.glob("toy/*")), tmp_path / "macrodata" / "1.0.0")
    shutil.copytree(folder / "published", tmp_path / "data" / "filter")
    assert [one.name for one in browse.data_sets(str(tmp_path))] == ["macrodata"]
    (tmp_path / "data" / "filter").rename(tmp_path / "data" / "others")
    assert [one.name for one in browse.data_sets(str(tmp_path))] == ["macrodata", "data (JSON)"]


def test_a_sample_without_a_plan_or_notes_has_fewer_parts():
    bare = Sentence((Text("an owl"), Target(image(0))), "text_to_image", 3)
    kind = "text_to_image", "0"
    page = gallery.gallery("x", "y", [("x", statistics.Statistics(1, places={kind: [0]}), {kind: [bare]})])
    card = page.split("<article>")[1]
    assert not re.search("<svg|<blockquote|<table|verdicts|<details", card)


def _run(*argv):
    with pytest.raises(SystemExit) as left:
        run(browse.main, ["browse", *argv], positional=("folder",), folder="f", num="n", seed="s", out="o")
    return left.value.code


def test_the_command_writes_beside_the_data(folder, capsys):
    assert _run(str(folder), "--num=1") == 0
    assert (folder / "browse.html").is_file()
    assert re.search(r"browse.html: 4 samples, \d\.\d MB", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["{folder}/nowhere"], "nowhere: there is no such folder"),
        (["{folder}/empty"], "holds no data set and no .json samples"),
        (["{folder}", "--num=0"], "--num=0: must be at least 1"),
        (["{folder}", "--out={folder}/toy-summary.json/x.html"], "cannot be written"),
        ([], "folder"),
    ],
)
def test_mistakes_are_one_clear_line(folder, capsys, argv, said):
    (folder / "empty").mkdir(exist_ok=True)
    assert _run(*(each.format(folder=folder) for each in argv)) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line


def test_a_summary_that_is_none_is_named(folder, tmp_path):
    for text in ("{", "[]", '{"filters": 3}'):
        (tmp_path / "toy-summary.json").write_text(text)
        with pytest.raises(UserError, match="toy-summary.json.*is not what data.build writes"):
            statistics.statistics_of([], 0, tmp_path / "toy-summary.json", tmp_path / "toy-dead.jsonl")
