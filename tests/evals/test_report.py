import numpy as np
import pytest

from macro.evals import report
from macro.utils.images import save

KEYS = tuple(report.HEADS)


def samples(held, count, num=6):
    return [{key: [held, count] for key in KEYS if key != "swap_follow"} for _ in range(num)]


def records(held, count, num=6):
    return [
        {"bucket": "x", "index": n, "model": model, "chance": other}
        for n, (model, other) in enumerate(zip(samples(held, count, num), samples(0, count, num), strict=True))
    ]


def results():
    return report.summary({"1-3": records(1, 2), "4-5": records(3, 4)}, KEYS, ("chance",), {"seed": 7})


def test_shares_are_over_things_not_samples():
    bucket = [{"subject_recall": [1, 1]}, {"subject_recall": [0, 3]}]
    assert report.value_of([bucket], "subject_recall") == 0.25


def test_nothing_to_count():
    assert report.value_of([[{}, {}]], "swap_follow") is None
    assert report.interval_of([[{}, {}]], "swap_follow") is None


def test_interval_covers_the_truth_and_repeats():
    rng = np.random.default_rng(0)
    bucket = [{"x": [int(rng.random() < 0.3), 1]} for _ in range(400)]
    low, high = report.interval_of([bucket], "x")
    assert low < 0.3 < high and high - low == pytest.approx(4 * np.sqrt(0.21 / 400), rel=0.2)
    assert report.interval_of([bucket], "x") == [low, high]


def test_summary_has_the_promised_shape():
    made = results()
    assert [row["bucket"] for row in made["buckets"]] == ["1-3", "4-5"]
    assert [row["num"] for row in made["buckets"]] == [6, 6]
    assert [row["subject_recall"] for row in made["buckets"]] == [0.5, 0.75]
    assert made["overall"]["subject_recall"] == 0.625
    assert made["yardsticks"]["chance"]["subject_recall"] == 0
    assert set(KEYS) <= made["buckets"][0].keys() & made["yardsticks"]["chance"].keys()
    assert made["overall"]["intervals"]["subject_recall"] == [0.625, 0.625]
    assert made["settings"] == {"seed": 7}


def test_table_has_a_line_for_everything():
    lines = report.table(results()).splitlines()
    assert [line.split()[0] for line in lines] == ["references", "1-3", "4-5", "all", "95%", "95%", "chance"]
    assert len({len(line) for line in lines}) == 1
    assert "0.625" in lines[3] and lines[3].endswith("-")


def test_page_stands_alone(tmp_path):
    save(tmp_path / "strip.png", np.zeros((8, 8, 3), np.uint8))
    report.write(tmp_path, results(), [("a <image 1> dog", tmp_path / "strip.png")], str(tmp_path / "out" / "x.json"))
    page = (tmp_path / "evaluation.html").read_text()
    assert "data:image/png;base64," in page and "a &lt;image 1&gt; dog" in page
    assert 'src="http' not in page and "href" not in page
    assert (tmp_path / "out" / "x.json").read_text() == (tmp_path / "evaluation.json").read_text()
