"""Holds a built data set against itself: do its words say what its images show, and is every image there once?

    python -m data.check runs/data                        all data sets below; writes runs/data/check.html
    python -m data.check runs/data/music --json=check.json --page=check.html --num=1000
    python -m data.check runs/train --against=runs/eval   and that the two share no sample and no image; so do all
                                                          splits below one folder

Words are read by a parser of their own and held against pixels, masks and the layout grid; nothing here is shared with
what wrote the words. Each check gives how many things it looked at and how many are wrong, and how many of the words
of its sort could be read at all. The exit code is 0 for a clean set, 1 if anything is wrong, 2 for a mistake in the
command.

    colour_words  one colour: at least half of the subject's visible painted pixels; "red and blue": the two largest
    relations     of prompts and of the truth, against masks and the stored order in depth
    questions     yes or no, from what is visible
    thoughts      who is there, how many, where, how far, in which relation
    layouts       cells of the grid against boxes         subjects   nouns against the images that they stand for
    boxes         boxes of the truth against masks        markers    `<image n>` against the images given
    duplicates    near-duplicate targets                  splits     what two splits share
    files         records and images that are missing or broken

Read next: `check_sample.py`, `check_reader.py`, `check_sight.py`, `check_copies.py`.
"""

import json as jsons
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.check_copies import Prints, copies, prints_of, shared
from data.check_reader import Reader
from data.check_sample import Fault, examine, kinds_of
from macro.inputs.sources import JsonFolderSource, open_source
from macro.sentence.spans import Sentence
from macro.utils.config import run
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.html import render

CHECKS = (
    "colour_words", "relations", "questions", "thoughts", "duplicates", "splits", "files", "layouts", "subjects",
    "boxes", "markers",
)  # fmt: skip
SHOWN = 12  # the worst examples of a check, on the page and in the JSON
NOUNS = 100  # samples that are asked for the nouns of a data set


@dataclass
class Result:
    """What was found in one data set: counts of each check, faults by sample, prints of all samples."""

    name: str
    samples: Sequence[Sentence] | None
    checked: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    read: Counter = field(default_factory=Counter)
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    prints: list[Prints] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # the index of each entry of `prints`
    split: str = ""
    known: Counter = field(default_factory=Counter)  # samples with a truth, albedo, plan

    def fault(self, index: int, check: str, where: str, words: str, why: str) -> None:
        self.faults.append((index, Fault(check, where, words, why, 1.0)))

    def counts(self) -> dict[str, dict]:
        """{check: {"checked", "wrong"}}, and "read" where words had to be read."""
        wrong = Counter(fault.check for _, fault in self.faults)
        out = {name: {"checked": self.checked[name], "wrong": wrong[name]} for name in CHECKS}
        for name, found in self.found.items():
            out[name]["read"] = round(self.read[name] / found, 4) if found else 1.0
        return out


def main(folder: str, json: str = "", page: str = "", against: str = "", num: int = 0) -> int:
    if num < 0:
        raise UserError(f"--num={num}: must be at least 0; 0 checks all samples")
    results = check(folder, num)
    others = check(against, num, words=False) if against else []
    pairs = [(one, other) for one in results for other in others] + list(splits_of(results))
    for one, other in pairs:
        compare(one, other)
    told = report(results, bool(pairs))
    if json:
        atomic_write(json, jsons.dumps(told, indent=1, ensure_ascii=False) + "\n")
    page = page or str(Path(folder) / "check.html")
    atomic_write(page, page_of(folder, results, told))
    print(printed(results, told))
    print(f"wrote {page}")
    return int(any(told[name]["wrong"] for name in CHECKS))


def check(folder: str, num: int = 0, words: bool = True) -> list[Result]:
    """Checks each data set below a folder; the first `num` samples of each, 0 for all.

    Args:
        words: False only takes prints of the samples.

    Raises:
        UserError: no such folder, or no data set in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one that holds a data set")
    results = [_opened(root, where, built) for built, where in found_below(root)]
    if not results:
        raise UserError(f"{folder}: holds no data set and no .json samples; name a folder that does")
    for result in results:
        if result.samples is not None:
            examine_all(result, num, words)
    return results


def found_below(folder: Path) -> Iterator[tuple[bool, Path]]:
    """(whether it was built, else it holds JSON samples; folder) of each data set."""
    built = sorted(folder.glob("**/dataset_info.json"))
    for info in built:
        yield True, info.parent
    if not built and any(folder.glob("**/*.json")):
        yield False, folder


def _opened(root: Path, where: Path, built: bool) -> Result:
    """The data set of a folder, its files looked at; without samples if it cannot be opened."""
    name = str(where.relative_to(root)) if where != root else where.name
    result = Result(name, None)
    if not built:
        result.samples = JsonFolderSource(where)
        return result
    for file, why in _files(where):
        result.split = result.split or file.partition("-")[2].partition(".")[0]
        result.checked["files"] += 1
        if why:
            result.fault(-1, "files", file, file, why)
    try:
        result.samples = open_source(str(where))
        len(result.samples)
    except Exception as error:  # whatever a reader makes of a broken file
        result.samples = None
        result.checked["files"] += 1
        result.fault(-1, "files", where.name, where.name, f"cannot be opened: {_line(error)}")
    return result


def _files(where: Path) -> Iterator[tuple[str, str]]:
    """Each shard that the data set's own list names, and what is wrong with it, "" for nothing."""
    try:
        about = jsons.loads((where / "dataset_info.json").read_text())
        for split in about["splits"]:
            lengths = split["shardLengths"]
            for shard in range(len(lengths)):
                name = f"{about['name']}-{split['name']}.{about['fileFormat']}-{shard:05d}-of-{len(lengths):05d}"
                file = where / name
                yield name, "" if file.is_file() and file.stat().st_size else "is missing or empty"
    except (ValueError, KeyError, TypeError) as error:
        yield "dataset_info.json", f"cannot be read: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def examine_all(result: Result, num: int = 0, words: bool = True) -> None:
    """Adds what is found in the samples of a result; the first `num` of them, 0 for all. See `check`."""
    indices = range(min(len(result.samples), num) if num else len(result.samples))
    nouns = _nouns(result.samples, indices) if words else set()
    for index in indices:
        result.checked["files"] += 1
        try:
            sentence = result.samples[index]
            result.prints.append(prints_of(sentence))
        except Exception as error:  # a decoder may raise anything on broken bytes
            result.fault(index, "files", f"sample {index}", f"sample {index}", _line(error))
            continue
        result.places.append(index)
        if words:
            _count(result, index, sentence, nouns)
    if words:
        result.checked["duplicates"] = sum(one.target is not None for one in result.prints)
        for later, earlier in copies(result.prints):
            told, why = f"target of sample {result.places[later]}", f"as in sample {result.places[earlier]}"
            result.fault(result.places[later], "duplicates", "target", told, why)


def _nouns(samples: Sequence[Sentence], indices: Sequence[int]) -> set[str]:
    """Nouns of a data set's subjects, from samples spread over it; each sample adds its own."""
    nouns: set[str] = set()
    for index in indices[:: max(1, len(indices) // NOUNS)]:
        try:
            nouns |= kinds_of(samples[index])
        except Exception:  # counted where the sample is examined
            continue
    return nouns


def _count(result: Result, index: int, sentence: Sentence, nouns: set[str]) -> None:
    truth = sentence.truth
    result.known["truth"] += truth is not None
    result.known["albedo"] += getattr(truth, "albedo", None) is not None
    result.known["plan"] += sentence.plan is not None
    try:
        seen = examine(sentence, Reader(nouns | kinds_of(sentence)))
    except UserError as error:
        result.checked["markers"] += 1
        result.fault(index, "markers", "prompt", "", _line(error))
        return
    for name in ("checked", "found", "read"):
        getattr(result, name).update(getattr(seen, name))
    result.faults += [(index, fault) for fault in seen.faults]


def splits_of(results: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """Pairs of data sets that are different splits, as their own files name them."""
    for n, one in enumerate(results):
        yield from ((other, one) for other in results[:n] if one.split and other.split and one.split != other.split)


def compare(one: Result, other: Result) -> None:
    """Adds to `one` what it shares with `other`."""
    one.checked["splits"] += len(one.prints)
    for n, m, what in shared(one.prints, other.prints):
        words, why = f"sample {one.places[n]}", f"{other.name} has {what}, in its sample {other.places[m]}"
        one.fault(one.places[n], "splits", "sample", words, why)


def not_checked(results: Sequence[Result], compared: bool) -> dict[str, str]:
    """What could not be checked, and why: {check: reason}."""
    known, samples = sum((result.known for result in results), Counter()), sum(len(r.prints) for r in results)
    without = f"{samples - known['truth']:,} of {samples:,} samples have no truth (masks)"
    out = {}
    if known["truth"] < samples:
        out = dict.fromkeys(("colour_words", "relations", "questions", "subjects", "boxes", "layouts"), without)
        if known["plan"]:
            out["thoughts"] = f"{without}; such thoughts were held against boxes of the notes or the layout grid"
    elif known["albedo"] < known["truth"]:
        out["colour_words"] = f"{known['truth'] - known['albedo']:,} of {samples:,} samples have no albedo stored"
    if not compared:
        out["splits"] = "nothing to compare with; name another data set by --against"
    return out


def report(results: Sequence[Result], compared: bool) -> dict:
    """The JSON: counts of each check over all data sets, of each data set, what was not checked, the worst faults."""
    total = Result("all", None)
    for result in results:
        for name in ("checked", "found", "read"):
            getattr(total, name).update(getattr(result, name))
        total.faults += result.faults
    examples = [
        {"set": result.name, "sample": index, "check": fault.check, "in": fault.where, "words": fault.words,
         "why": fault.why}
        for result, index, fault in worst(results)
    ]  # fmt: skip
    sets = {result.name: {"samples": len(result.prints), **result.counts()} for result in results}
    return total.counts() | {"not_checked": not_checked(results, compared), "sets": sets, "examples": examples}


def worst(results: Sequence[Result]) -> list[tuple[Result, int, Fault]]:
    """The worst faults of each check."""
    every = [(result, index, fault) for result in results for index, fault in result.faults]
    every.sort(key=lambda one: -one[2].weight)
    return [one for name in CHECKS for one in [each for each in every if each[2].check == name][:SHOWN]]


def printed(results: Sequence[Result], told: dict) -> str:
    """The counts as text."""
    lines = []
    for result in results:
        lines.append(f"{result.name}: {len(result.prints):,} samples")
        lines.append(f"  {'check':13} checked   wrong   read")
        for name, counts in told["sets"][result.name].items():
            if name != "samples" and (counts["checked"] or "read" in counts):
                read = f"{counts['read']:7.0%}" if "read" in counts else ""
                lines.append(f"  {name:13} {counts['checked']:7,} {counts['wrong']:7,}{read}")
    reasons: dict[str, list[str]] = {}
    for name, why in told["not_checked"].items():
        reasons.setdefault(why, []).append(name)
    lines += [f"not checked: {', '.join(names)}: {why}" for why, names in reasons.items()]
    return "\n".join(lines)


def page_of(folder: str, results: Sequence[Result], told: dict) -> str:
    """The page: the counts, and the worst faults with their images."""
    chapters: dict[str, list[dict]] = {}
    for result, index, fault in worst(results):
        sentence = None if index < 0 or fault.check == "files" else result.samples[index]
        chapters.setdefault(fault.check, []).append(
            {"set": result.name, "index": index, "fault": fault, "sentence": sentence}
        )
    return render(
        "check.html",
        Path(__file__).parent,
        title=f"macro: check of {folder}",
        heading=os.path.basename(os.path.abspath(folder)),
        checks={name: told[name] for name in CHECKS},
        not_checked=told["not_checked"],
        chapters=chapters,
    )


def command(argv: Sequence[str] | None = None) -> None:
    """The command line; sys.argv if None."""
    run(
        main,
        argv,
        positional=("folder",),
        folder="folder that holds data sets, built or as JSON samples",
        json="file that the counts and the worst examples are written to",
        page="the page to write; check.html in the folder if left out",
        against="another folder of data sets, which may share no sample and no image",
        num="samples of each data set that are checked; 0 for all",
    )


if __name__ == "__main__":
    command()
