import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from sampling.toy import random_image, sentence

from macro.sampling import report
from macro.sampling.options import SamplingOptions
from macro.sampling.pipeline import Candidate, PipelineOutput
from macro.sentence.plan import Plan
from macro.sentence.spans import Image
from macro.utils.errors import UserError
from macro.utils.images import data_uri, load

GRID = np.kron([[0, 1], [2, 2]], np.ones((4, 4))).astype(np.int8)


def _output(count=2, cot="A & <b>.", grid=GRID, given=False):
    candidates = tuple(Candidate(Plan(cot, grid), random_image(n, 64, 64), -1.0 - n) for n in range(count))
    seconds = {"prompt": 0.1, "plan": 0.2, "draw": 0.5, "decode": 0.1}
    options = SamplingOptions(use_planner=True, cfg_overall_scale=1.5)
    ends = {"full": (31, 20), "no_text": (9, 2)}
    return PipelineOutput(sentence(), candidates, 0, 7, options, given, seconds, 25, None, ends)


@pytest.fixture(scope="module")
def page():
    return report.html(_output(), "python -m macro.sample --seed=7")


def test_page_needs_nothing_from_elsewhere(page):
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']{0,30})""", page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"url\(|@import|<script|<link|https?://", page)


def test_images_stand_at_their_words(page):
    heading = re.search(r"<h1.*?</h1>", page, re.S)[0]
    words = re.sub(r'<span class="word".*?</span>', "[image]", heading)
    assert re.sub(r"</?h1[^>]*>", "", words) == "A [image]by [image]"


def test_everything_is_shown(page):
    for shown in [*sentence().images, *_output().candidates]:
        assert data_uri(shown.pixels) in page
    assert "-1.000 nats" in page and "-2.000 nats" in page and "picked" in page
    assert "0.90 s" in page and "--seed=7" in page
    assert "full +6, no_text -4.5, null -0.5" in page and "full 31 tokens, no_text 9 tokens" in page


def test_a_subject_without_cells_is_said_to_be_missing(page):
    without = report.html(_output(grid=np.where(GRID == 2, 0, GRID)))
    assert "not in the plan" in without and "not in the plan" not in page


def test_it_says_where_nothing_ranks_the_candidates(page):
    alike = tuple(dataclasses.replace(each, score=None) for each in _output().candidates)
    other = report.html(dataclasses.replace(_output(), candidates=alike))
    assert "nothing ranks them" in other and other.count("no score") == 2 and "nats" not in other
    assert "nothing ranks them" not in page


def test_an_image_to_edit_is_marked_as_such(page):
    made = _output()
    source = Image(random_image(3, 20, 20), role="source")
    edit = dataclasses.replace(made, sentence=made.sentence.replace(spans=(source, *made.sentence.spans)))
    assert report.html(edit).count("to edit") == 1 and data_uri(source.pixels) in report.html(edit)
    assert "to edit" not in page


def test_words_are_escaped(page):
    assert "A &amp; &lt;b&gt;." in page and "<b>." not in page


def test_plans_without_a_grid_and_single_candidates_have_fewer_parts():
    page = report.html(_output(1, grid=None, given=True))
    assert "<svg" not in page and "Candidates" not in page and "given" in page


def test_grid_svg_has_a_number_per_subject_and_a_line_per_border():
    svg = report.grid_svg(GRID)
    assert re.findall(r"<text[^>]*>(\d+)</text>", svg) == ["1", "2"]
    assert svg.count("<rect") == 64
    assert svg.count("h1") == 8 and svg.count("v1") == 4
    assert report.grid_svg(GRID, over=True).count("<rect") == 48


def test_files_are_written_whole(tmp_path):
    made = _output()
    report.write(tmp_path / "new", made)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "plan.json",
        "plan.png",
        "image.png",
        "report.html",
    }
    assert Plan.from_json((tmp_path / "new" / "plan.json").read_text()) == made.plan
    np.testing.assert_array_equal(load(tmp_path / "new" / "image.png"), made.pixels)


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        report.write(tmp_path, _output())
    assert not list(tmp_path.iterdir())
