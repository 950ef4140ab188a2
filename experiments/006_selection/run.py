"""What selection costs in quality, by method and keep ratio: results.json, table.md, curve.png beside this file.

    python experiments/006_selection/run.py         goes on where results.json stands
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from experiments import quality  # noqa: E402
from macro.models.token_selection import METHODS, TokenSelection  # noqa: E402

KEEPS = (0.7, 0.5, 0.3, 0.2, 0.1)
ALL = "all"


def main():
    variants = {ALL: {}}
    for method in METHODS:
        each = {keep: TokenSelection(keep=keep, method=method) for keep in KEEPS}
        variants |= {f"{method} {keep}": {"token_selection": selection} for keep, selection in each.items()}
    show(quality.run(HERE, variants, "8-10", num=64, seed=6))


def show(results: dict) -> None:
    """Writes table and plot of the variants that are there."""
    (HERE / "table.md").write_text(table(results))
    plot(results)


def table(results: dict) -> str:
    """Markdown: recall of subjects and kinds and palette distance by method and keep ratio."""
    lines = ["| method | measure | 1 | " + " | ".join(f"{keep:g}" for keep in KEEPS) + " |\n"]
    lines.append("|---|---|" + "---|" * (len(KEEPS) + 1) + "\n")
    for method in METHODS:
        for name, digits in (("subject_recall", 3), ("kind_recall", 3), ("palette_distance", 4)):
            found = [results.get(variant) for variant in (ALL, *(f"{method} {keep}" for keep in KEEPS))]
            values = " | ".join("" if each is None else f"{each[name][0]:.{digits}f}".lstrip("0") for each in found)
            lines.append(f"| {method} | {name.replace('_', ' ')} | {values} |\n")
    ends = ["{1:.3f} to {2:.3f}".format(*results[ALL][name]) for name in ("subject_recall", "kind_recall")]
    return "".join(lines) + f"\n95% intervals of the first column: subject recall {ends[0]}, kind recall {ends[1]}.\n"


def plot(results: dict) -> None:
    """Recall of subjects and of kinds against keep ratio, a line a method."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, name in zip(axes, ("subject_recall", "kind_recall"), strict=True):
        mean, low, high = results[ALL][name]
        axis.axhspan(low, high, color="0.92", label="all tokens, 95%")
        for method in METHODS:
            keeps = [keep for keep in KEEPS if f"{method} {keep}" in results]
            means = [mean] + [results[f"{method} {keep}"][name][0] for keep in keeps]
            axis.plot((1, *keeps), means, marker="o", ms=4, label=method)
        axis.set(xlabel="share of the images' tokens that is kept", ylabel=name.replace("_", " "), xscale="log")
        axis.set_ylim(bottom=0)
        axis.set_xticks((1, *KEEPS), [f"{keep:g}" for keep in (1, *KEEPS)])
        axis.minorticks_off()
        axis.invert_xaxis()
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "curve.png", dpi=120)


if __name__ == "__main__":
    main()
