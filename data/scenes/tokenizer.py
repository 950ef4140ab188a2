"""Makes the demo's vocabulary from the wording of a built data set of scenes.

python -m data.scenes.tokenizer --data=runs/data --out=macro/assets/demo_tokenizer.json

It learns from prompts with their `<image n>` marks and cut at the images, from thoughts with their marks, and
from the names of all kinds, so that none depends on chance. Merges end when every word is one token, so the
vocabulary may stay smaller than requested. Ids belong to trained weights: use a model with the file it was
trained with.
"""

import os
from collections.abc import Iterator

from macro.inputs.sources import RecordSource, open_source
from macro.inputs.tokenizer import Tokenizer
from macro.scenes.assets.catalog import KINDS
from macro.scenes.language.lexicon import plural
from macro.sentence.plan import wrap_think
from macro.sentence.prompt import prompt_of
from macro.sentence.spans import Text
from macro.utils.config import run


def texts(source: RecordSource, num: int) -> Iterator[str]:
    """All text of the first `num` sentences, and the name of every kind."""
    yield from (f"the {kind} and two {plural(kind)}" for kind in sorted(KINDS))
    for index in range(min(num, len(source))):
        sentence = source.outline(index)
        yield prompt_of(sentence)
        yield from (span.text for span in sentence if isinstance(span, Text))
        if sentence.plan is not None:
            yield wrap_think(sentence.plan.cot)


def main(data: str, out: str, num: int = 5000, size: int = 1024) -> None:
    tokenizer = Tokenizer.train(texts(open_source(data), num), size)
    unfinished = f"{out}.tmp"
    tokenizer.save(unfinished)
    os.replace(unfinished, out)
    print(f"{out}: {tokenizer.vocab_size} entries, {os.path.getsize(out) / 1000:.0f} kB")


if __name__ == "__main__":
    run(
        main,
        data="folder of a built data set of scenes",
        out="tokenizer.json to write",
        num="how many sentences to learn from",
        size="the most entries",
    )
