"""Reads instructions and thoughts back into statements, and looks statements up in a picture.

Neither knows the code that wrote them: the reader knows the language, the eye knows ids, depth and the graph.
"""

import re

import numpy as np

_RELATIONS = {
    "to the left of": "left of", "to the right of": "right of", "left of": "left of", "right of": "right of",
    "in front of": "in front of", "behind": "behind", "on top of": "on", "on": "on", "next to": "next to",
    "beside": "next to", "far from": "far from",
}  # fmt: skip
_R = "(?:" + "|".join(_RELATIONS) + ")"
_S = r"(?:S\d+)"
_VERB = "(?: is| are| stands| can be seen)?"
_MANY = rf"{_S}(?:(?:, {_S})*(?: and|,) {_S})?"
_STATEMENT = re.compile(
    rf"(?:put |place |set )?(?P<who>{_MANY}){_VERB} (?P<name>{_R}) (?P<whom>{_S})"
    rf"(?:(?P<link> and|, which is) (?P<name2>{_R}) (?P<whom2>{_S}))?"
)
_INVERTED = re.compile(rf"(?P<name>{_R}) (?P<whom>{_S})(?: is| stands|, put|, place|, set) (?P<who>{_S})")
_BETWEEN = re.compile(rf"(?:put |place |set )?(?P<who>{_S}){_VERB} between (?P<a>{_S}) and (?P<b>{_S})")
_BETWEEN_INVERTED = re.compile(
    rf"between (?P<a>{_S}) and (?P<b>{_S})(?: is| stands|, put|, place|, set) (?P<who>{_S})"
)
_ROW = re.compile(
    rf"(?:put |place |set )?(?P<who>{_MANY})(?: are)? from (?P<way>left to right|right to left)"
)
_ALONE = re.compile(rf"(?:there is |draw )?{_S}")


def read_instruction(prompt, kinds):
    """Statements (i, name, j) or (i, "between", (j, k)) of a prompt, and subjects in the order of mention.

    Only for one reference a subject. Raises AssertionError where a sentence is not understood.
    """
    text = _name_subjects(prompt, kinds)
    order = list(dict.fromkeys(int(n) for n in re.findall(r"S(\d+)", text)))
    statements = []
    for sentence in re.split(r"[.;] ?", text):
        sentence = re.sub(r"^on [a-z ]+, ", "", sentence)
        sentence = re.sub(r"^(a picture of|a scene with) ", "", sentence)
        if "S" in sentence:
            statements += _read_sentence(sentence)
    return statements, order


def _name_subjects(prompt, kinds):
    """Every mention becomes S1, S2, ..."""
    names = "|".join(sorted(set(kinds), key=len, reverse=True))
    text = re.sub(rf"(?:the |a |an )?<image (\d+)>(?: ({names})\b)?", _marked(kinds), prompt)

    def unmarked(match):
        numbers = [n for n, kind in enumerate(kinds, 1) if kind == match[1]]
        assert len(numbers) == 1, f"which {match[1]}? {prompt}"
        return f"S{numbers[0]}"

    return re.sub(rf"\bthe ({names})\b", unmarked, text)


def _marked(kinds):
    def name(match):
        assert match[2] in (None, kinds[int(match[1]) - 1]), f"picture {match[1]} shows no {match[2]}"
        return f"S{match[1]}"

    return name


def _read_sentence(sentence):
    if match := _STATEMENT.fullmatch(sentence):
        whom, found = _number(match["whom"]), []
        found += [(i, _RELATIONS[match["name"]], whom) for i in _numbers(match["who"])]
        if match["link"]:
            i = whom if "which" in match["link"] else _number(match["who"])
            found.append((i, _RELATIONS[match["name2"]], _number(match["whom2"])))
        return found
    if match := _INVERTED.fullmatch(sentence):
        return [(_number(match["who"]), _RELATIONS[match["name"]], _number(match["whom"]))]
    if match := _BETWEEN.fullmatch(sentence) or _BETWEEN_INVERTED.fullmatch(sentence):
        return [(_number(match["who"]), "between", (_number(match["a"]), _number(match["b"])))]
    if match := _ROW.fullmatch(sentence):
        row = _numbers(match["who"])
        row = row if match["way"] == "left to right" else row[::-1]
        return [(i, "left of", j) for i, j in zip(row, row[1:], strict=False)]
    assert _ALONE.fullmatch(sentence), f"not understood: {sentence!r}"
    return []


def _number(word):
    return int(re.fullmatch(r"S(\d+)", word)[1])


def _numbers(words):
    return [int(n) for n in re.findall(r"S(\d+)", words)]


class Eye:
    """Looks at a picture's ids and depth, and at the graph for what stands on what; subjects from 1."""

    def __init__(self, scene, truth):
        self.masks, self.amodal, self.scene = truth.masks, truth.amodal, scene
        size = truth.masks.shape[1]
        self.pixels = [np.argwhere(mask) / size for mask in truth.masks]
        self.nearness = {n: place for place, n in enumerate(truth.depth_order)}

    def middle(self, n):
        """(x, y) of the visible part."""
        y, x = self.pixels[n - 1].mean(0)
        return x, y

    def span(self, n):
        x = self.pixels[n - 1][:, 1]
        return x.min(), x.max()

    def sees(self, i, name, j):
        if name == "between":
            (a, b), x = j, self.middle(i)[0]
            return min(self.middle(a)[0], self.middle(b)[0]) < x < max(self.middle(a)[0], self.middle(b)[0])
        (xi, yi), (xj, yj) = self.middle(i), self.middle(j)
        apart = max(self.span(i)[0], self.span(j)[0]) - min(self.span(i)[1], self.span(j)[1])
        if name == "on":
            resting = {(r.subject + 1, r.objects[0] + 1) for r in self.scene.relations if r.name == "on"}
            return (i, j) in resting and yi < yj
        return {
            "left of": xi < xj,
            "right of": xi > xj,
            "in front of": self.nearness[i] < self.nearness[j],
            "behind": self.nearness[i] > self.nearness[j],
            "next to": apart < 0.1,
            "far from": np.hypot(xi - xj, yi - yj) > 0.5,
            "hides": bool((self.masks[i - 1] & self.amodal[j - 1]).any()),
        }[name]
