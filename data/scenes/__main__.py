"""Builds the data set of rendered scenes.

python -m data.scenes --num=20000 --out=runs/data --seed=0

It lands in <out>/scenes/<version>, complete or not at all. A build that was stopped goes on if called again.
"""

from data.scenes.scenes_dataset_builder import Builder, Options
from macro.inputs.records import build
from macro.utils.config import run


def main(out: str, num: int = 1000, seed: int = 0, size: int = 128, reference_size: int = 64) -> None:
    options = Options(size=size, reference_size=reference_size)
    print(build(Builder, out, seed, num, options))


if __name__ == "__main__":
    run(
        main,
        out="folder that the data set is written to",
        num="how many sentences",
        seed="the seed everything follows from",
        size="side of the target pictures, pixels",
        reference_size="side of the reference pictures, pixels",
    )
