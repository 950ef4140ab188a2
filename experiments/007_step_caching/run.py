"""What step caching costs in quality and saves in time, against fewer plain steps: results.json, table.md, curve.png.

    python experiments/007_step_caching/run.py      goes on where results.json stands
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from experiments import quality  # noqa: E402
from macro.diffusion.step_cache import TaylorSeer, TeaCache  # noqa: E402

FAMILIES = {
    "plain steps": {f"{steps} steps": {"steps": steps} for steps in (25, 13, 9, 7, 5)},
    "taylor, order 0": {f"taylor {n}, order 0": {"step_cache": TaylorSeer(n, 0)} for n in (2, 3, 4, 6)},
    "taylor, order 1": {f"taylor {n}, order 1": {"step_cache": TaylorSeer(n, 1)} for n in (2, 3, 4, 6)},
    "taylor, order 2": {f"taylor {n}, order 2": {"step_cache": TaylorSeer(n, 2)} for n in (2, 3)},
    "threshold": {f"threshold {limit:g}": {"step_cache": TeaCache(limit)} for limit in (0.1, 0.2, 0.4)},
}


def main():
    variants = {name: changes for family in FAMILIES.values() for name, changes in family.items()}
    results = quality.run(HERE, variants, "4-5", num=64, seed=7)
    (HERE / "table.md").write_text(table(results))
    plot(results)


def table(results: dict) -> str:
    """Markdown, a line a variant; time against the first one's."""
    lines = ["| variant | full steps | loop, times faster | subject recall | palette distance |\n"]
    lines.append("|---|---|---|---|---|\n")
    slowest = next(iter(results.values()))["loop_seconds"]
    for name, found in results.items():
        recall, low, high = found["subject_recall"]
        faster, away = slowest / found["loop_seconds"], found["palette_distance"][0]
        lines.append(
            f"| {name} | {found['full_steps']} | {faster:.1f} | {recall:.3f} ({low:.3f}-{high:.3f}) | {away:.4f} |\n"
        )
    return "".join(lines)


def plot(results: dict) -> None:
    """Palette distance against full steps, a line a family."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for family, variants in FAMILIES.items():
        found = [results[name] for name in variants]
        steps = [each["full_steps"] for each in found]
        axis.plot(steps, [each["palette_distance"][0] for each in found], marker="o", ms=4, label=family)
    axis.set(xlabel="steps that ran the layers", ylabel="palette distance (less is better)")
    axis.legend(frameon=False)
    figure.savefig(HERE / "curve.png", dpi=120)


if __name__ == "__main__":
    main()
