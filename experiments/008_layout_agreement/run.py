"""Agreement of MUSIC's layout with the exact one, by what goes wrong before it: results.json, table.md, curve.png.

python experiments/008_layout_agreement/run.py
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import json  # noqa: E402

import numpy as np  # noqa: E402

from macro.engines import music, procedural, scenes  # noqa: E402
from macro.engines.ground_truth import labels  # noqa: E402
from macro.engines.material.types import EngineImage  # noqa: E402
from macro.engines.procedural.vision import bled  # noqa: E402
from macro.engines.provider import ScenePrompt  # noqa: E402
from macro.scenes.ground_truth.annotate import READINGS_OF_K, layout  # noqa: E402
from macro.sentence.layout import grid_iou  # noqa: E402

NUM, SEED, SIZE = 240, 8, 128
SHAPES = ("mask", "box", "clip")
STEPS = ("detect", "segment", "region", "layout")
# Error of the provider -> its levels.
NOISES = {
    "boxes": (0.0, 0.02, 0.05, 0.1, 0.2, 0.4),
    "masks": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
    "missed": (0.0, 0.05, 0.1, 0.2, 0.4),
    "swapped": (0.0, 0.1, 0.25, 0.5, 1.0),
}
BLEEDING = (-0.4, -0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
SIDES = (128, 64, 32, 16, 8)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main():
    drawn = scenes.draw_scenes(SEED, range(NUM), scenes.Options(size=SIZE, rays=1, tries=2))
    results = {"scenes": NUM, "seed": SEED, "size": SIZE, "subjects": sum(len(d.truth.kinds) for d in drawn)}
    results["path"] = through_the_engine(drawn)
    results["rule"] = by_the_rule(drawn)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    show(results)


# ---- through MUSIC's own steps ----


def through_the_engine(drawn: Sequence[scenes.Drawn]) -> dict:
    """name -> [mean, its 95% half width] of both measures, for every error, level and choice of region."""
    exact = [layout(d.truth.masks) for d in drawn]
    out = {}
    for noise, levels in NOISES.items():
        for level in levels:
            for shape in SHAPES:
                out[f"{noise} {level} {shape}"] = agreement(laid_out(drawn, {noise: level}, shape), exact)
                print(f"{noise} {level} {shape}", out[f"{noise} {level} {shape}"], flush=True)
    return out


def laid_out(drawn: Sequence[scenes.Drawn], noise: dict, shape: str) -> list[np.ndarray]:
    """The layouts that MUSIC's steps give, with the truth's numbers. What their filters would drop is not left out."""
    provider = procedural.provider(procedural.Options(SIZE, 1, procedural.Noise(**noise)))
    options = music.Options(size=SIZE, region=shape)
    run = {step.name: step.run for step in music.ENGINE.steps}
    candidates = [
        music.MusicCandidate(
            SEED, i, 0, "compose", "", count=len(d.truth.kinds), idea=ScenePrompt("", labels(d.scene), d.scene),
            image=EngineImage(d.pixels, d.scene),
        )
        for i, d in enumerate(drawn)
    ]  # fmt: skip
    candidates = run["detect"](candidates, provider, options)
    found = [candidate for candidate in candidates if candidate.regions]
    for step in STEPS[1:]:
        found = run[step](found, provider, options)
    grids = {candidate.index: _renumbered(candidate, labels(drawn[candidate.index].scene)) for candidate in found}
    return [grids.get(i, np.zeros((8, 8), np.int8)) for i in range(len(drawn))]


def _renumbered(candidate: music.MusicCandidate, names: Sequence[str]) -> np.ndarray:
    """Region numbers become the numbers of the subjects that they are said to show."""
    numbers = np.array([0, *(names.index(region.label) + 1 for region in candidate.regions)], np.int8)
    return numbers[candidate.grid]


def agreement(grids: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> dict[str, list[float]]:
    measures = {
        "cells": [float((grid == true).mean()) for grid, true in zip(grids, exact, strict=True)],
        "subjects": [grid_iou(grid, true) for grid, true in zip(grids, exact, strict=True)],
    }
    return {
        name: [round(float(np.mean(each)), 5), round(float(1.96 * np.std(each) / np.sqrt(len(each))), 5)]
        for name, each in measures.items()
    }


# ---- the rule alone, where the provider has no such error ----


def by_the_rule(drawn: Sequence[scenes.Drawn]) -> dict:
    masks = [d.truth.masks for d in drawn]
    out = {}

    def note(name: str, K: str, grid_of: Callable[[int], np.ndarray], true_K: str = "") -> None:
        exact = [layout(each, K=true_K or K) for each in masks]
        out[name] = agreement([grid_of(i) for i in range(len(masks))], exact)

    for K in READINGS_OF_K:
        for other in READINGS_OF_K:
            note(f"reading {K} against {other}", K, lambda i, K=K: layout(masks[i], K=K), other)
        for share in BLEEDING:
            note(f"bleeding {share} {K}", K, lambda i, K=K, share=share: layout(_bled(masks[i], share), K=K))
        for side in SIDES:
            note(f"side {side} {K}", K, lambda i, K=K, side=side: layout(_coarse(masks[i], side), K=K))
        for share in SHARES:
            mixed = [_mixed(masks, i, share) for i in range(len(masks))]
            note(f"boxed {share} {K}", K, lambda i, K=K, mixed=mixed: layout(masks[i], K=K, region=mixed[i]))
    return out


def _bled(masks: np.ndarray, share: float) -> np.ndarray:
    return np.stack([bled(mask, share) for mask in masks])


def _coarse(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks that a segmenter gives at `side` pixels: a pixel is the thing's if most of it is."""
    block = SIZE // side
    return masks.reshape(len(masks), side, block, side, block).mean((2, 4)) > 0.5


def _mixed(masks: Sequence[np.ndarray], index: int, share: float) -> list[str]:
    """Which subjects are taken by their boxes: more of them for a larger share, never another one."""
    draws = np.random.default_rng([SEED, index]).random(len(masks[index]))
    return ["box" if draw < share else "mask" for draw in draws]


# ---- to look at ----


def show(results: dict) -> None:
    (HERE / "table.md").write_text(table(results))
    plot(results)


def table(results: dict) -> str:
    """Markdown: both measures by error and level."""
    path, rule = results["path"], results["rule"]
    heads = [f"{name}, {shape}" for name in ("cells", "subjects") for shape in ("mask", "box", "CLIP's choice")]
    lines = [_head("error", "level", *heads)]
    for noise, levels in NOISES.items():
        for level in levels:
            rows = [path[f"{noise} {level} {shape}"] for shape in SHAPES]
            cells = [_short(row[name][0]) for name in ("cells", "subjects") for row in rows]
            lines.append(f"| {noise} | {level:g} | {' | '.join(cells)} |\n")
    lines.append("\nThe rule alone, by reading of K (cells, subjects), each against its own exact layout:\n\n")
    lines.append(_head("error", "level", *READINGS_OF_K))
    for error, levels in (("bleeding", BLEEDING), ("side", SIDES), ("boxed", SHARES)):
        for level in levels:
            rows = [rule[f"{error} {level} {K}"] for K in READINGS_OF_K]
            lines.append(f"| {error} | {level:g} | {' | '.join(_both(row) for row in rows)} |\n")
    lines.append("\nOne reading of K (row) against another (column), exact masks:\n\n")
    lines.append(_head("", *READINGS_OF_K))
    for K in READINGS_OF_K:
        row = [_both(rule[f"reading {K} against {other}"]) for other in READINGS_OF_K]
        lines.append(f"| {K} | {' | '.join(row)} |\n")
    widest = max(row[name][1] for part in (path, rule) for row in part.values() for name in row)
    lines.append(f"\n{results['scenes']} scenes, {results['subjects']} subjects; 95% half widths up to {widest:.3f}.\n")
    return "".join(lines)


def _head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _both(row: dict) -> str:
    return f"{_short(row['cells'][0])}, {_short(row['subjects'][0])}"


def plot(results: dict) -> None:
    """A panel an error; full lines are subjects' IoU, dashed ones cells."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    path, rule = results["path"], results["rule"]
    figure, axes = pyplot.subplots(2, 4, figsize=(15, 7), layout="constrained", sharey=True)
    words = {
        "boxes": "box edges off by (share of the side)", "masks": "masks bleed or shrink by up to (share of the width)",
        "missed": "chance that a thing is missed", "swapped": "chance that two labels are swapped",
    }  # fmt: skip
    for axis, (noise, levels) in zip(axes[0], NOISES.items(), strict=True):
        for shape in SHAPES:
            _lines(axis, levels, [path[f"{noise} {level} {shape}"] for level in levels], shape)
        axis.set_xlabel(words[noise])
    panels = {
        "bleeding": (BLEEDING, "masks grown (shrunk) by (share of the width)"),
        "side": (SIDES, "side of the masks, pixels"),
        "boxed": (SHARES, "share of things taken by their box"),
    }
    for axis, (error, (levels, label)) in zip(axes[1], panels.items(), strict=False):
        for K in READINGS_OF_K:
            _lines(axis, levels, [rule[f"{error} {level} {K}"] for level in levels], K)
        axis.set_xlabel(label)
        if error == "side":
            axis.set_xscale("log", base=2)
            axis.set_xticks(levels, [str(level) for level in levels])
            axis.invert_xaxis()
    axes[0, 0].legend(frameon=False, title="region")
    axes[1, 0].legend(frameon=False, title="K runs over")
    for axis in axes[:, 0]:
        axis.set_ylabel("subjects' IoU (full), cells (dashed)")
    for axis in axes.flat:
        axis.set_ylim(0.1, 1.02)
        axis.grid(alpha=0.2)
    axes[1, 3].axis("off")
    figure.savefig(HERE / "curve.png", dpi=110)


def _lines(axis, levels: Sequence[float], rows: Sequence[dict], name: str) -> None:
    (line,) = axis.plot(levels, [row["subjects"][0] for row in rows], marker="o", ms=3, label=name)
    axis.plot(levels, [row["cells"][0] for row in rows], ls="--", color=line.get_color())


if __name__ == "__main__":
    main()
