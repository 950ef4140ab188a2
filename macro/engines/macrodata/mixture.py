"""Which task and bucket of references sample `index` is for: MACRO's published mixture, in rounds.

Published train counts are 20k, 20k, 30k, 30k over the buckets of customization and 25k in every other (task, bucket)
pair: weights 4, 4, 6, 6 and twelve times 5. So 80 indices make a cycle of rounds, and each round has every
pair with weight left once. The first 16 samples are one of each, and every 80 are exactly proportional.
"""

from macro.utils.streams import stream

TASKS = ("customization", "illustration", "spatial", "temporal")
BUCKETS: dict[str, tuple[int, ...]] = {"1-3": (1, 2, 3), "4-5": (4, 5), "6-7": (6, 7), "8-10": (8, 9, 10)}
_CUSTOMIZATION = {"1-3": 4, "4-5": 4, "6-7": 6, "8-10": 6}
WEIGHTS: dict[tuple[str, str], int] = {
    (task, bucket): _CUSTOMIZATION[bucket] if task == "customization" else 5 for bucket in BUCKETS for task in TASKS
}
CYCLE: tuple[tuple[str, str], ...] = tuple(
    pair for turn in range(max(WEIGHTS.values())) for pair, weight in WEIGHTS.items() if weight > turn
)


def pair_of(index: int) -> tuple[str, str]:
    """(task, bucket) of sample `index`."""
    return CYCLE[index % len(CYCLE)]


def rank_of(index: int) -> int:
    """How many samples before `index` are for the same task: the index of its raw material."""
    cycle, at = divmod(index, len(CYCLE))
    own = [task == CYCLE[at][0] for task, _ in CYCLE]
    return cycle * sum(own) + sum(own[:at])


def references_of(seed: int, index: int, bucket: str) -> int:
    """How many references sample `index` should have, equally likely within its bucket.

    Like all that makes a sample hard, it is the same for every attempt: retries must not bias the mixture towards
    easy ones.
    """
    return int(stream(seed, index, "references").choice(BUCKETS[bucket]))
