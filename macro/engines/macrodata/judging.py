"""The filters that MACRO's tasks share: a judge's scores, and whether a prompt names its pictures rightly."""

import re
from collections.abc import Sequence

from macro.engines.drafts import D, use
from macro.engines.stages import Judgement, Stages


def judged(drafts: Sequence[D], judgements: Sequence[Judgement], stages: Stages, threshold: float) -> list[D]:
    """Drafts with a verdict on each of the judge's scores (0..10); dropped where one is below the threshold.

    Scores `consistency_1`, `consistency_2`, ... of several references are one verdict, "consistency", on the lowest.
    """

    def weighed(draft: D, scores: dict[str, float]) -> D:
        single = {name: (value, "") for name, value in scores.items() if not name.startswith("consistency_")}
        several = {name: value for name, value in scores.items() if name not in single}
        if several:
            worst = min(several, key=lambda name: several[name])
            single = {"consistency": (several[worst], f", reference {worst.split('_')[1]}")} | single
        for name, (value, where) in single.items():
            if draft.dropped is None:
                reason = "" if value >= threshold else f"{value:.1f}{where}, below {threshold:g}"
                draft = draft.passes(name, value >= threshold, value, reason)
        return draft

    return use(drafts, "judge", stages.judge(judgements), weighed)


def misnamed(prompt: str, count: int) -> str:
    """What is wrong with the `<image n>` of a prompt that must name each of `count` pictures; "" if nothing is."""
    named = {int(n) for n in re.findall(r"<image (\d+)>", prompt)}
    missing, strange = sorted(set(range(1, count + 1)) - named), sorted(named - set(range(1, count + 1)))
    if missing:
        return f"the prompt does not name <image {missing[0]}>"
    return f"the prompt names <image {strange[0]}>, but there are {count} pictures" if strange else ""
