"""The filters that MACRO's tasks share: a judge's scores, and whether a prompt names its images correctly."""

import re
from collections.abc import Sequence

from macro.engines.core import D, map_answers
from macro.engines.provider import JudgeRequest, Provider


def judge_scores(
    candidates: Sequence[D], requests: Sequence[JudgeRequest], provider: Provider, threshold: float
) -> list[D]:
    """Candidates with a result for each of the judge's scores (0..10); dropped if one is below the threshold.

    Scores `consistency_1`, `consistency_2`, ... of several references give one result, "consistency", on the lowest.
    """

    def weighed(candidate: D, scores: dict[str, float]) -> D:
        single = {name: (value, "") for name, value in scores.items() if not name.startswith("consistency_")}
        several = {name: value for name, value in scores.items() if name not in single}
        if several:
            worst = min(several, key=lambda name: several[name])
            single = {"consistency": (several[worst], f", reference {worst.split('_')[1]}")} | single
        for name, (value, where) in single.items():
            if candidate.dropped is None:
                reason = "" if value >= threshold else f"{value:.1f}{where}, below {threshold:g}"
                candidate = candidate.check(name, value >= threshold, value, reason)
        return candidate

    return map_answers(candidates, "judge", provider.judge(requests), weighed)


def marker_error(prompt: str, count: int) -> str:
    """What is wrong with the `<image n>` of a prompt that must name each of `count` images; "" if nothing is."""
    named = {int(n) for n in re.findall(r"<image (\d+)>", prompt)}
    missing, strange = sorted(set(range(1, count + 1)) - named), sorted(named - set(range(1, count + 1)))
    if missing:
        return f"the prompt does not name <image {missing[0]}>"
    return f"the prompt names <image {strange[0]}>, but there are {count} images" if strange else ""
