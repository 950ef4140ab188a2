import jax.numpy as jnp
import numpy as np
import pytest

from macro.diffusion.guidance import Guidance, guide
from macro.utils.errors import UserError


def inset(text=4.0, overall=1.5):
    return Guidance.from_scales(text, cfg_overall_scale=overall)


def bagel(cfg_text_scale=4.0, cfg_img_scale=2.0, **more):
    return Guidance.from_scales(cfg_text_scale, cfg_img_scale, **{"cfg_renorm_type": "global"} | more)


def _velocities(names, b=2, n=4, c=6, scale=1.0):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(scale * rng.normal(size=(b, n, c)), jnp.float32) for name in names}


def _norm(v, axes):
    return np.linalg.norm(v, axis=axes, keepdims=True)


def test_inset_net_weights_are_the_papers():
    assert inset().weights == {"full": 6.0, "no_text": -4.5, "null": -0.5}


def test_inset_is_its_two_stages():
    v = _velocities(inset().contexts)
    balanced = v["no_text"] + 4.0 * (v["full"] - v["no_text"])
    expected = v["null"] + 1.5 * (balanced - v["null"])
    np.testing.assert_allclose(guide(inset(), v), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [Guidance(), inset(), inset(2.0, 3.0), bagel(4.0, 1.5, cfg_renorm_type="none")])
def test_without_renorm_guidance_is_the_weighted_sum(spec):
    assert sum(spec.weights.values()) == pytest.approx(1.0)
    v = _velocities(spec.contexts)
    expected = sum(weight * v[name] for name, weight in spec.weights.items())
    np.testing.assert_allclose(guide(spec, v), expected, rtol=1e-5, atol=1e-5)


def test_agreeing_contexts_are_left_alone():
    same = _velocities(["full"])["full"]
    for spec in (inset(), bagel(), bagel(cfg_renorm_type="channel"), bagel(cfg_renorm_type="text_channel")):
        np.testing.assert_allclose(guide(spec, dict.fromkeys(spec.contexts, same)), same, atol=1e-5)


def test_bagel_switches():
    assert bagel(cfg_text_scale=4.0, cfg_img_scale=1.0).contexts == ("full", "no_text")
    assert bagel(cfg_text_scale=1.0, cfg_img_scale=2.0).weights == {"full": 2.0, "no_image": -1.0}
    assert bagel(cfg_text_scale=1.0, cfg_img_scale=2.0, as_released=True) == Guidance()
    assert bagel(cfg_text_scale=1.0, cfg_img_scale=1.0) == Guidance()
    assert bagel(cfg_text_scale=3.0, cfg_img_scale=2.0).weights == {"full": 6.0, "no_text": -4.0, "no_image": -1.0}


@pytest.mark.parametrize("renorm, axes", [("global", (1, 2)), ("channel", (2,))])
def test_renorm_shrinks_to_the_norm_of_full_but_not_below_minimum(renorm, axes):
    spec = bagel(4.0, 2.0, cfg_renorm_type=renorm)
    v = _velocities(spec.contexts)
    plain = guide(bagel(4.0, 2.0, cfg_renorm_type="none"), v)
    ratio = _norm(v["full"], axes) / _norm(plain, axes)
    assert (ratio < 1).any()
    np.testing.assert_allclose(guide(spec, v), plain * np.minimum(ratio, 1), rtol=1e-4, atol=1e-5)
    floored = guide(bagel(4.0, 2.0, cfg_renorm_type=renorm, cfg_renorm_min=0.9), v)
    np.testing.assert_allclose(floored, plain * np.clip(ratio, 0.9, 1), rtol=1e-4, atol=1e-5)


def test_renorm_never_enlarges():
    spec = bagel(4.0, 1.0, cfg_renorm_type="global")
    full = _velocities(["full"])["full"]
    v = {"full": full, "no_text": full * 1.2}  # guided = 1.2 - 0.8 = 0.4 of full
    np.testing.assert_allclose(guide(spec, v), 0.4 * full, rtol=1e-4, atol=1e-6)


def test_text_channel_renormalises_between_the_stages():
    spec = bagel(4.0, 2.0, cfg_renorm_type="text_channel")
    v = _velocities(spec.contexts)
    text = v["no_text"] + 4.0 * (v["full"] - v["no_text"])
    text = text * np.minimum(_norm(v["full"], -1) / _norm(text, -1), 1)
    expected = v["no_image"] + 2.0 * (text - v["no_image"])
    np.testing.assert_allclose(guide(spec, v), expected, rtol=1e-4, atol=1e-5)


def test_image_guidance_alone_is_not_renormalised_by_text_channel():
    v = _velocities(("full", "no_image"))
    expected = v["no_image"] + 2.0 * (v["full"] - v["no_image"])
    spec = bagel(1.0, 2.0, cfg_renorm_type="text_channel")
    np.testing.assert_allclose(guide(spec, v), expected, rtol=1e-5, atol=1e-5)


def test_parity_takes_one_norm_for_the_whole_batch():
    spec = bagel(4.0, 2.0, as_released=True)
    v = _velocities(spec.contexts)
    plain = guide(bagel(4.0, 2.0, cfg_renorm_type="none"), v)
    ratio = _norm(v["full"].ravel(), 0) / _norm(plain.ravel(), 0)
    np.testing.assert_allclose(guide(spec, v), plain * ratio, rtol=1e-4, atol=1e-5)
    alone = {name: x[:1] for name, x in v.items()}
    np.testing.assert_allclose(guide(spec, alone), guide(bagel(4.0, 2.0), alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("renorm", ["global", "channel", "text_channel"])
def test_samples_of_a_batch_do_not_touch_each_other(renorm):
    spec = bagel(4.0, 2.0, cfg_renorm_type=renorm)
    v = _velocities(spec.contexts)
    v = {name: x.at[1].multiply(100.0) for name, x in v.items()}
    alone = guide(spec, {name: x[:1] for name, x in v.items()})
    np.testing.assert_allclose(guide(spec, v)[:1], alone, rtol=1e-5)


def test_interval_is_open_below_and_closed_above():
    spec = bagel(cfg_interval=(0.4, 1.0))
    assert [bool(spec.active(t)) for t in (0.4, 0.41, 1.0)] == [False, True, True]
    assert not spec.always and inset().always


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="no_words"):
        Guidance(stages=(("no_words", 2.0),))
    with pytest.raises(UserError, match="loud"):
        bagel(cfg_renorm_type="loud")
