"""What selection costs in quality, by method and keep ratio: results.json, table.md, curve.png beside this file.

    python experiments/006_selection/run.py         goes on where results.json stands
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from experiments import quality  # noqa: E402
from macro.models.selection import METHODS, Selection  # noqa: E402

KEEPS = (0.7, 0.5, 0.3, 0.2, 0.1)
ALL = "all"


def main():
    variants = {ALL: {}}
    for method in METHODS:
        variants |= {f"{method} {keep}": {"select": Selection(keep=keep, method=method)} for keep in KEEPS}
    results = quality.run(HERE, variants, "8-10", num=64, seed=6)
    (HERE / "table.md").write_text(table(results))
    plot(results)


def table(results: dict) -> str:
    """Markdown: subject recall and palette distance by method and keep ratio."""
    lines = ["| method | measure | 1 | " + " | ".join(f"{keep:g}" for keep in KEEPS) + " |\n"]
    lines.append("|---|---|" + "---|" * (len(KEEPS) + 1) + "\n")
    for method in METHODS:
        for name, digits in (("subject_recall", 3), ("palette_distance", 4)):
            cells = [results[ALL][name]] + [results[f"{method} {keep}"][name] for keep in KEEPS]
            values = " | ".join(f"{cell[0]:.{digits}f}".lstrip("0") for cell in cells)
            lines.append(f"| {method} | {name.replace('_', ' ')} | {values} |\n")
    low, high = results[ALL]["subject_recall"][1:]
    return "".join(lines) + f"\n95% interval of the first column's subject recall: {low:.3f} to {high:.3f}.\n"


def plot(results: dict) -> None:
    """Subject recall against keep ratio, a line a method."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    mean, low, high = results[ALL]["subject_recall"]
    axis.axhspan(low, high, color="0.92", label="all tokens, 95%")
    for method in METHODS:
        axis.plot((1, *KEEPS), [mean] + [results[f"{method} {keep}"]["subject_recall"][0] for keep in KEEPS],
                  marker="o", ms=4, label=method)  # fmt: skip
    axis.set(xlabel="share of the pictures' tokens that is kept", ylabel="subject recall", xscale="log")
    axis.set_xticks((1, *KEEPS), [f"{keep:g}" for keep in (1, *KEEPS)])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.legend(frameon=False)
    figure.savefig(HERE / "curve.png", dpi=120)


if __name__ == "__main__":
    main()
