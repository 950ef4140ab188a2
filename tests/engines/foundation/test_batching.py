"""Batches in which one bad item spoils nothing, and crops; no model is loaded."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_vision import noise

from macro.engines.foundation.batching import answer, crop, squared
from macro.engines.foundation.detector import GroundingDino
from macro.engines.foundation.generators import FluxCompose, FluxDraw
from macro.engines.foundation.segmenter import Sam2
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region
from macro.utils.errors import ItemError, UserError

IMAGE = EngineImage(noise(0, 40, 80))


@given(st.lists(st.integers(-20, 20), max_size=12), st.integers(1, 5))
def test_answers_come_in_order_and_faults_stay_where_they_are(numbers, batch):
    """Negative numbers are faults from the start; the model cannot take multiples of 5, nor mixed parities."""
    calls = []

    def run(items):
        calls.append(list(items))
        assert len(items) <= batch and len({item % 2 for item in items}) == 1
        if any(item % 5 == 0 for item in items):
            raise ValueError("no multiples\nof five")
        return [10 * item for item in items]

    items = [ItemError(str(n)) if n < 0 else n for n in numbers]
    expected = [
        ItemError(str(n)) if n < 0 else ItemError("ValueError: no multiples") if n % 5 == 0 else 10 * n for n in numbers
    ]
    assert answer(run, items, batch, key=lambda item: item % 2) == expected
    # Nobody is asked again who was in no bad batch.
    for n in {n for n in numbers if n > 0 and n % 5}:
        bad = [call for call in calls if n in call and any(item % 5 == 0 for item in call)]
        assert bool(bad) or sum(call.count(n) for call in calls) == numbers.count(n)


def test_out_of_memory_is_one_items_fault_and_a_defect_is_nobodys():
    def run(items):
        if "huge" in items:
            raise MemoryLimit("out of memory: tried to allocate 80 GB")
        return [item.upper() for item in items]

    class MemoryLimit(RuntimeError):
        pass

    found = answer(run, ["a", "huge", "b"], batch=3)
    assert found == ["A", ItemError("MemoryLimit: out of memory: tried to allocate 80 GB"), "B"]
    with pytest.raises(TypeError):
        answer(lambda items: [item + 1 for item in items], ["a"], batch=1)


def test_a_crop_is_the_box_and_with_a_mask_white_but_for_it():
    mask = np.zeros((40, 80), bool)
    mask[12:18, 30:50] = True
    region = Region("dog", (0.25, 0.25, 0.75, 0.5), mask=mask)
    plain, blanked = crop(IMAGE, region, masked=False), crop(IMAGE, region, masked=True)
    np.testing.assert_array_equal(plain, IMAGE.pixels[10:20, 20:60])
    inside = mask[10:20, 20:60]
    np.testing.assert_array_equal(blanked[inside], plain[inside])
    assert (blanked[~inside] == 255).all()
    assert crop(IMAGE, Region("dog", (-1.0, 0.0, 2.0, 1.0)), masked=False).shape == (40, 80, 3)
    # Every pixel that the box touches.
    assert crop(IMAGE, Region("dog", (0.24, 0.26, 0.251, 0.274)), masked=False).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("region", "masked", "reason"),
    [
        (Region("dog", (0.5, 0.2, 0.5, 0.4)), False, "empty"),
        (Region("dog", (0.6, 0.2, 0.4, 0.4)), False, "empty"),
        (Region("dog", (1.2, 0.2, 1.4, 0.4)), False, "outside"),
        (Region("dog", (0.0, 0.0, 1.0, 1.0)), True, "no mask"),
        (Region("dog", (0.0, 0.0, 1.0, 1.0), mask=np.ones((3, 3), bool)), True, "another size"),
    ],
)
def test_what_cannot_be_cropped_is_a_fault(region, masked, reason):
    found = crop(IMAGE, region, masked)
    assert isinstance(found, ItemError) and reason in found.reason and "'dog'" in found.reason


def test_squared_puts_a_image_in_the_middle_of_white():
    square = squared(IMAGE.pixels)
    assert square.shape == (80, 80, 3)
    np.testing.assert_array_equal(square[20:60], IMAGE.pixels)
    assert (square[:20] == 255).all() and (square[60:] == 255).all()
    np.testing.assert_array_equal(squared(noise(1, 8, 8)), noise(1, 8, 8))


WITHOUT = """
import sys
sys.modules[{package!r}] = None  # as if it were not installed; in a process of its own, for what half imports stays so
import numpy as np
from macro.engines.foundation.detector import GroundingDino
from macro.engines.foundation.embeddings import Clip, Dino
from macro.engines.foundation.generators import FluxCompose, FluxDraw, KontextRedraw
from macro.engines.foundation.orb_filter import OrbStillness
from macro.engines.foundation.segmenter import Sam2
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region, ScenePrompt
from macro.utils.errors import ItemError, UserError

image, region = EngineImage(np.zeros((8, 8, 3), np.uint8)), Region("dog", (0.0, 0.0, 1.0, 1.0))
calls = {{
    "transformers": [
        lambda: GroundingDino("elsewhere")([image], [["dog"]]),
        lambda: Sam2("elsewhere")([image], [[region]]),
        lambda: Clip("elsewhere")([image], [region], ["dog"], [False]),
        lambda: Dino("elsewhere")([image], [image]),
    ],
    "diffusers": [
        lambda: FluxDraw("elsewhere")([ScenePrompt("a dog", ("dog",))], [32], [0]),
        lambda: KontextRedraw("elsewhere")([image], [region], [32], [0]),
        lambda: FluxCompose("elsewhere")(["a dog"], [[]], [32], [0]),
    ],
    "cv2": [lambda: OrbStillness()([image], [image])],
}}
for call in calls.get({package!r}, calls["transformers"] + calls["diffusers"]):
    try:
        call()
    except UserError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("package", "calls"),
    [
        ("cv2", 1),
        ("transformers", 4),
        pytest.param("diffusers", 3, marks=pytest.mark.slow),
        pytest.param("torch", 7, marks=pytest.mark.slow),
    ],
)
def test_a_missing_package_is_said_with_its_mend(package, calls):
    code = WITHOUT.format(package=package)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == calls
    for line in said:
        assert package.replace("cv2", "opencv") in line.lower() and "pip install 'macro-compose[engine]'" in line


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="overlap is 1.5"):
        GroundingDino(overlap=1.5)
    for stage in (GroundingDino, Sam2):
        with pytest.raises(UserError, match="batch is 0"):
            stage(batch=0)
    with pytest.raises(UserError, match="FluxDraw: side, steps and batch"):
        FluxDraw(steps=0)
    with pytest.raises(UserError, match="FluxCompose: reference_side"):
        FluxCompose(reference_side=0)
