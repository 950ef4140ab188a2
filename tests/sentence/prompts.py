"""Random prompts and their images."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from macro.sentence.prompt import marker
from macro.sentence.spans import Image

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
OWL = np.full((4, 6, 3), 7, np.uint8)

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=8)
decoys = st.sampled_from(["<Image 1>", "<image1>", "<image n>", "image 2", "<", "<image -1>", "[Image1]"])
names = st.text("abcé 9-", min_size=1).map(lambda name: f"images/{name}.jpg")


@st.composite
def prompts(draw, least: int = 0):
    """A prompt and the count of its images; markers repeat, touch, leave some out, stand anywhere."""
    images = draw(st.integers(least, 12))
    pieces = words | decoys
    if images:
        pieces |= st.integers(1, images).map(marker)
    prompt = "".join(draw(st.lists(pieces, min_size=1, max_size=10)))
    return (prompt if prompt.strip() else "an owl"), images


def images_of(count: int) -> list[Image]:
    return [Image(path=f"{n}.png", subject=n) for n in range(1, count + 1)]
