"""The rule for image sizes: buckets by crop, BAGEL's free sizes, areas, and what is refused."""

import numpy as np
import pytest

from macro.inputs.image_spec import ImageSpec, ResizeRule, fit_size
from macro.utils.errors import UserError

BUCKETS = ((1024, 1024), (512, 512), (768, 1024), (432, 576), (1024, 768))
SPEC = ImageSpec(ResizeRule(1024, 0, 16), ResizeRule(518, 224, 14), 1024, 980, BUCKETS)
BAGEL = ImageSpec.bagel(1024, 16, 980, 14)


def test_bagels_free_sizes():
    assert BAGEL.vae == ResizeRule(1024, 512, 16) and BAGEL.vit == ResizeRule(980, 224, 14)
    for size, vae, vit in (
        ((200, 200), (512, 512), (518, 518)),
        ((800, 1200), (688, 1024), (658, 980)),
        ((1024, 1024), (1024, 1024), (980, 980)),
    ):
        assert BAGEL.vae_size(size) == vae and BAGEL.vit_size(size) == vit  # the ViT sees what the VAE sees
        assert BAGEL.output_size(like=size) == vae
    assert BAGEL.output_size() == (1024, 1024) and BAGEL.output_size(aspect=16 / 9) == (576, 1024)
    small = ImageSpec.bagel(96, 16, 42, 14)
    assert small.vae == ResizeRule(96, 48, 16) and small.vit == ResizeRule(42, 21, 14)


def test_given_images_take_the_nearest_bucket_that_enlarges_them_little():
    for size, bucket in (
        ((1500, 1500), (1024, 1024)),
        ((800, 1200), (768, 1024)),
        ((500, 500), (512, 512)),
        ((300, 400), (432, 576)),
        ((60, 60), (512, 512)),  # too small for each: the least enlarged
    ):
        assert SPEC.vae_size(size) == bucket and SPEC.output_size(like=size) == bucket
    assert SPEC.vit_size((200, 200)) == (224, 224) and SPEC.vit_size((800, 1200)) == (350, 518)


def test_targets_are_cropped_never_stretched_and_refused_where_they_are_too_small():
    wide = np.zeros((600, 1200, 3), np.uint8)
    wide[:, :600] = 200  # the edge in the middle stays in the middle, at full contrast
    made = SPEC.vae_pixels(wide, SPEC.target_size((600, 1200)))
    assert made.shape == (768, 1024, 3)
    assert made[:, :500].min() == 200 and made[:, 524:].max() == 0
    circle = np.hypot(*(np.mgrid[:600, :1200] - np.array([300, 600])[:, None, None])) < 200
    shown = SPEC.vae_pixels(np.repeat(np.uint8(255 * circle)[..., None], 3, 2), (768, 1024))[..., 0] > 127
    across, down = np.ptp(np.nonzero(shown.any(0))), np.ptp(np.nonzero(shown.any(1)))
    assert abs(int(across) - int(down)) <= 1
    with pytest.raises(UserError, match=r"dog.png: 128x200 would be enlarged 3.4 times to fill 432x576, more"):
        SPEC.target_size((128, 200), "dog.png")


def test_areas_hold_each_image_by_their_count():
    areas = ((2, 1024 * 1024), (5, 576 * 1024), (10, 512 * 512))
    free = ImageSpec.bagel(1024, 16, 980, 14, areas)
    assert [free.reference_area(n) for n in (1, 2, 3, 6, 12)] == [1048576, 1048576, 589824, 262144, 262144]
    for count in (1, 3, 6, 12):
        for size in ((300, 400), (2000, 3000), (90, 1800)):
            assert np.prod(free.vae_size(size, count)) <= 1.1 * free.reference_area(count)
    assert ImageSpec.bagel(1024, 16, 980, 14).reference_area(3) is None


def test_sizes_asked_for_and_what_no_model_can_draw():
    assert SPEC.output_size() == (1024, 1024) and SPEC.output_size(aspect=4 / 3) == (768, 1024)
    assert SPEC.output_size((90, 90), size=(64, 1024)) == (64, 1024)
    for size in ((40, 64), (2048, 64)):
        with pytest.raises(UserError, match="multiples of 16, up to 1024"):
            SPEC.output_size(size=size)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"buckets": ((40, 64),)}, "40x64 is no multiple of 16"),
        ({"buckets": ((64, 2048),)}, "64x2048, but the model's position table reaches 1024"),
        ({"vit": ResizeRule(1960, 0, 14)}, "ViT: a longest side of 1960 pixels, but the model.s position table"),
        ({"max_upscale": 0.5}, "max_upscale"),
        ({"reference_pixels": ((2, 100), (1, 50))}, "reference_pixels"),
    ],
)
def test_impossible_rules_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        ImageSpec(**{**{f: getattr(SPEC, f) for f in SPEC.__dataclass_fields__}, **changes})
    with pytest.raises(UserError, match="falling"):
        ResizeRule(100, 200, 16)


def test_it_travels_as_json():
    import json

    for spec in (SPEC, BAGEL, ImageSpec.bagel(96, 16, 42, 14, ((1, 4096),))):
        assert ImageSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_fit_size_by_hand():
    assert fit_size(64, 64, max_side=64, stride=16) == (64, 64)
    assert fit_size(400, 300, max_side=64, stride=16) == (64, 48)
    assert fit_size(8, 8, max_side=64, stride=16) == (16, 16)
    assert fit_size(10, 1000, max_side=64, stride=16) == (16, 64)
    assert fit_size(100, 200, max_side=1024, stride=16, min_side=512) == (512, 1024)
