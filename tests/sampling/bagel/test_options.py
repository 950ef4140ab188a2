import pytest

from macro.models import variants
from macro.sampling.bagel.options import BagelOptions, read_options
from macro.sampling.bagel.sizes import prepared, target_size
from macro.utils.errors import UserError

SEVEN = variants.config_from_name("7B/1024", binding=False)


def test_a_section_of_a_config_is_read():
    options = read_options({"cfg_text_scale": 3, "cfg_interval": [0, 1], "image_shapes": [512, 768], "think": True})
    assert options == BagelOptions(3.0, cfg_interval=(0.0, 1.0), image_shapes=(512, 768), think=True)
    assert hash(options) is not None and read_options({}) == BagelOptions()


@pytest.mark.parametrize(
    "name, value",
    [
        ("cfg_text_scale", -1.0),
        ("cfg_text_scale", float("nan")),
        ("cfg_img_scale", float("inf")),
        ("cfg_interval", (0.5, 0.4)),
        ("cfg_interval", (0.5,)),
        ("cfg_interval", "half"),
        ("cfg_renorm_type", "local"),
        ("cfg_renorm_min", 1.5),
        ("timestep_shift", 0.0),
        ("num_timesteps", 0),
        ("text_temperature", 0.0),
        ("max_think_token_n", 1),
        ("image_shapes", (512, 0)),
        ("image_shapes", (512.5, 512)),
        ("aspect", "wide"),
        ("aspect", "0:3"),
        ("vae_transform", (512, 1024, 16)),
        ("vit_transform", (980, 224)),
        ("seed", -1),
    ],
)
def test_values_without_sense_are_named(name, value):
    with pytest.raises(UserError, match=f"sampling.{name}="):
        BagelOptions(**{name: value})


def test_other_mistakes_are_named():
    with pytest.raises(UserError, match="cfg_text_scale"):
        read_options({"text_scale": 3.0})
    with pytest.raises(UserError, match="num_timesteps.*float|num_timesteps.*int"):
        read_options({"num_timesteps": 2.5})
    with pytest.raises(UserError, match="aspect"):
        BagelOptions(aspect="1:1", image_shapes=(64, 64))
    with pytest.raises(UserError, match="at least 2"):
        BagelOptions(num_timesteps=1, parity=True)


def test_parity_counts_points_of_time():
    assert BagelOptions(num_timesteps=50).steps == 50 and BagelOptions(num_timesteps=50, parity=True).steps == 49


@pytest.mark.parametrize("aspect, size", [("1:1", (1024, 1024)), ("4:3", (768, 1024)), ("16:9", (576, 1024))])
def test_usual_aspects_have_the_usual_sizes(aspect, size):
    assert target_size(BagelOptions(aspect=aspect), SEVEN, []) == size
    turned = ":".join(reversed(aspect.split(":")))
    assert target_size(BagelOptions(aspect=turned), SEVEN, []) == size[::-1]


def test_what_is_asked_for_stands_over_the_last_picture():
    given = [(512, 768), (768, 512)]
    assert target_size(BagelOptions(), SEVEN, given) == (768, 512)
    assert target_size(BagelOptions(image_shapes=(64, 128)), SEVEN, given) == (64, 128)
    assert target_size(BagelOptions(image_shapes=(64, 128)), SEVEN, given, asked=(32, 32)) == (32, 32)
    assert target_size(BagelOptions(aspect="1:1"), SEVEN, given) == (1024, 1024)
    assert target_size(BagelOptions(image_shapes=(64, 128), parity=True), SEVEN, given) == (768, 512)
    assert target_size(BagelOptions(), SEVEN, []) == (1024, 1024)


@pytest.mark.parametrize("size", [(1040, 16), (100, 64)])
def test_a_size_without_room_is_refused(size):
    with pytest.raises(UserError, match="multiples of 16"):
        target_size(BagelOptions(image_shapes=size), SEVEN, [])


def test_given_pictures_get_the_released_sizes(make_pixels):
    for_vae, for_vit = prepared(make_pixels(300, 500), BagelOptions(), SEVEN)
    assert for_vae.shape == (512, 848, 3) and for_vit.shape == (518, 854, 3)
    assert for_vae.min() >= -1 and for_vae.max() <= 1
    with pytest.raises(UserError, match="vae_transform"):
        prepared(make_pixels(300, 500), BagelOptions(vae_transform=(2048, 512, 16)), SEVEN)
    with pytest.raises(UserError, match="vit_transform"):
        prepared(make_pixels(300, 500), BagelOptions(vit_transform=(512, 256, 16)), SEVEN)
