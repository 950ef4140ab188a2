"""Names of sizes, overrides, and the released model's parameter count without allocating it."""

import jax
import numpy as np
import pytest

from macro.models import variants
from macro.models.composer import Composer, dummy_batch
from macro.utils.errors import UserError


def count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", variants.SIZES)
def test_heads_divide_and_round_trip(size):
    config = variants.config_from_name(f"{size}/256")
    assert config.llm.heads % config.llm.kv_heads == 0 and config.llm.head_dim % 2 == 0
    assert config.latent_side * config.pixels_per_token == 256
    assert variants.from_dict(variants.to_dict(config)) == config


def test_released_model_has_the_released_parameters():
    """Binding aside; the two position tables (4096 and 4900 rows of 3584) are computed here, not stored."""
    config = variants.config_from_name("7B/1024", binding=False)
    shapes = jax.eval_shape(Composer(config).init, jax.random.key(0), *dummy_batch(config))["params"]
    assert count(shapes) == 14_607_260_128 - (4096 + 4900) * 3584
    assert count(shapes["mot"]["blocks"]["gen"]) + count(shapes["mot"]["gen_norm"]) == 6_525_628_928
    assert count(shapes["planner"]["vision"]) == 402_552_736


def test_overrides_reach_into_parts():
    config = variants.config_from_name("XS/128", llm={"vocab": 768}, vae={"scale": 2.0}, remat="full")
    assert (config.llm.vocab, config.vae.scale, config.remat) == (768, 2.0, "full")
    assert config.llm.width == variants.config_from_name("XS/128").llm.width


@pytest.mark.parametrize("name", ["XS", "XS/", "XS/100", "XS/0", "huge/256", "7b/1024", ""])
def test_wrong_names_say_what_is_expected(name):
    with pytest.raises(UserError, match="expected <size>/<pixels>"):
        variants.config_from_name(name)


def test_unknown_field_is_named():
    with pytest.raises(UserError, match="model.layers: no such field"):
        variants.config_from_name("XS/128", llm={"layers": 3}, layers=3)
