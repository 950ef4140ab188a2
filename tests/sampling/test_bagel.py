"""BAGEL's way of drawing on a model of odd sizes: against training's forward pass, and each trap by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import random_image
from sampling.toy_bagel import CONFIG, FIRST, FREE, OPTIONS, PACKING, PIECES, PIPELINE, SECOND, TOKENIZER, sentence_of

from macro.diffusion.guidance import Guidance, guide
from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import pack_sentence
from macro.models.composer import Composer
from macro.models.token_selection import TokenSelection
from macro.models.vae import encode_images
from macro.sampling import pipeline as pipeline_lib
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

NAMES = ("full", "no_text", "no_image")
TOKENS = 12  # latent tokens of the image to draw, 32 x 24 pixels
RELEASED = {"policy": "bagel", "num_timesteps": 2}  # one step, as the released code counts
NOISE = np.asarray(jax.random.normal(jax.random.key(5), (2, TOKENS, CONFIG.latent_channels)))
WIDE = np.asarray(jax.random.normal(jax.random.key(6), (1, 15, CONFIG.latent_channels)))  # 24 x 40 pixels


def _training_velocity(context: str) -> jax.Array:
    """Velocity at t = 1 of the packed training row whose conditions were dropped to `context`."""
    spans = [Image(FIRST), Text("one"), Image(SECOND), Text("and two"), Target(np.zeros((32, 24, 3), np.uint8))]
    chances = {name: float(name == context) for name in ("no_text", "no_image", "null")}
    packing = dataclasses.replace(PACKING, cfg_dropout=CfgDropout(**chances))
    packed = pack_sentence(Sentence(tuple(spans)), TOKENIZER, packing, np.random.default_rng(0))
    row = jax.tree.map(lambda a: jnp.asarray(a)[None], collate([packed], packing))
    drawn = np.flatnonzero(row["latent"]["loss"][0])
    return _packed_velocity(row, drawn)[:, drawn]


@jax.jit
def _packed_velocity(row, drawn):
    table = encode_images(PIPELINE.params["vae"], row["pixels"], CONFIG)
    x = jnp.take_along_axis(table, row["latent"]["source"][..., None], axis=1).at[0, drawn].set(NOISE[0])
    time = jnp.zeros(x.shape[:2]).at[0, drawn].set(1.0)
    return Composer(CONFIG).apply({"params": PIPELINE.params["composer"]}, row, x, time)["velocity"]


def _drawn(pieces, noise=NOISE[:1], pipeline=PIPELINE, **changes):
    given = [sentence_of(pieces)], None, len(noise)
    return pipeline.compose_batch(*given, noise=noise, **changes)[0]


def _one_step(pieces, noise=NOISE[:1], **changes):
    """The velocity of a drawing of one step."""
    return noise - np.stack([each.latents for each in _drawn(pieces, noise, **changes).candidates])


@pytest.fixture(scope="module")
def in_training():
    return {context: _training_velocity(context) for context in NAMES}


def test_a_step_adds_up_the_contexts_that_training_showed(in_training):
    for scales in ((3.0, 2.0), (1.0, 1.0), (3.0, 1.0), (1.0, 2.0)):
        spec = Guidance.from_scales(*scales, cfg_renorm_type="global")
        expected = np.asarray(guide(spec, in_training))
        step = _one_step(PIECES, cfg_text_scale=scales[0], cfg_img_scale=scales[1])
        np.testing.assert_allclose(step, expected, atol=1e-4 * np.abs(expected).max(), err_msg=str(scales))


def test_contexts_differ(in_training):
    """Otherwise the test above could not see them mixed up."""
    full, no_text, no_image = map(np.asarray, in_training.values())
    assert min(np.abs(a - b).max() for a, b in ((full, no_text), (full, no_image), (no_text, no_image))) > 0.01


def test_where_contexts_end_under_both_policies():
    images = 17 + 20 + 12 + 14  # tokens: 15 latents and 18 patches, 10 and 12, and two marks each
    texts = [len(TOKENIZER.encode(text)) + 2 for text in ("one", "and two")]
    assert _drawn(PIECES).ends == {
        "full": (images + sum(texts), 4 + sum(texts)),
        "no_text": (images, 4),
        "no_image": (sum(texts), 4 + sum(texts)),
    }
    # The released code draws in the last image's size, 40 x 16.
    assert _drawn(PIECES, NOISE[:1, :10], **RELEASED).ends == {
        "full": (images + sum(texts), 4 + sum(texts)),
        "no_text": (images + texts[0], 4 + texts[0]),  # only the last text is gone
        "no_image": (sum(texts), sum(texts)),  # no gaps
    }


@pytest.mark.slow
def test_token_selection_and_strengths_under_both_policies():
    """With one image and one text after it both policies compare the same contexts, so they draw the same image."""
    sentence = Sentence((Image(FIRST), Text("one"), Target(size=FIRST.shape[:2])))
    given = {"cfg_img_scale": 1.0, "sample_posterior": True}

    def step(**changes):
        (drawn,) = PIPELINE.compose_batch([sentence], noise=WIDE, **given, **changes)
        return WIDE[0] - drawn.candidates[0].latents

    plain = step()
    for change in ({"token_selection": TokenSelection(keep=0.5, layers=(0, 1))}, {"strengths": [[3.0]]}):
        joint, bagel = step(**change), step(**change, **RELEASED)
        np.testing.assert_allclose(bagel, joint, atol=1e-4 * np.abs(joint).max(), err_msg=str(change))
        assert np.abs(bagel - plain).max() > 1e-2 * np.abs(plain).max(), change


def test_images_of_a_batch_do_not_touch_each_other():
    """`global` renorm by default; one norm for all is what the released code does."""
    both = _one_step(["one"], NOISE * [[[1.0]], [[30.0]]])
    alone = _one_step(["one"], NOISE[:1])
    np.testing.assert_allclose(both[:1], alone, atol=1e-4 * np.abs(alone).max())
    together = _one_step(["one"], NOISE * [[[1.0]], [[30.0]]], **RELEASED)
    assert np.abs(together[:1] - alone).max() > 1e-2 * np.abs(alone).max()


def test_sentences_side_by_side_are_what_they_are_alone():
    """Whatever the number of their images, and whichever of them share a chunk."""
    sentences = [sentence_of(pieces) for pieces in (PIECES, ["one"], ["one", SECOND])]
    together = PIPELINE.compose_batch(sentences, seeds=[1, 2, 3])
    for n, (sentence, result) in enumerate(zip(sentences, together, strict=True)):
        alone = PIPELINE.compose_sentence(sentence, seed=n + 1)
        expected = alone.candidates[0].latents
        np.testing.assert_allclose(result.candidates[0].latents, expected, atol=1e-4 * np.abs(expected).max())
        assert result.ends == alone.ends


def test_the_released_code_makes_one_step_less():
    step = _one_step(["one"], **RELEASED)
    np.testing.assert_allclose(step, _one_step(["one"], num_timesteps=1), atol=1e-4 * np.abs(step).max())


def test_posterior_is_the_mean_unless_asked_for():
    def step(seed, **changes):
        given = [sentence_of(PIECES)], None, 1, [seed]
        return PIPELINE.compose_batch(*given, noise=NOISE[:1], **changes)[0].candidates[0].latents

    np.testing.assert_array_equal(step(0), step(1))
    drawn, same, other = (step(seed, sample_posterior=True) for seed in (0, 0, 1))
    np.testing.assert_array_equal(drawn, same)
    assert np.abs(drawn - step(0)).max() > 1e-4 and np.abs(drawn - other).max() > 1e-4


def test_a_step_cache_runs_the_layers_in_some_steps():
    """Guidance ends on the way (`cfg_interval`), and the full context goes on from what it had."""
    from macro.diffusion.step_cache import TaylorSeer

    asked = {"cfg_interval": (0.5, 1.0), "num_timesteps": 10}
    whole, some = _drawn(PIECES, **asked), _drawn(PIECES, step_cache=TaylorSeer(3, 1), **asked)
    assert (whole.full_steps, some.full_steps) == (10, 4)
    a, b = (each.candidates[0].latents for each in (whole, some))
    assert 0 < np.abs(a - b).mean() < 0.5 * np.std(a)


def test_levels_are_rounded_or_truncated():
    values = np.float32([[-2, -1, 0.999, 1.0, 2]])
    assert pipeline_lib.to_uint8(values).tolist() == [[0, 0, 255, 255, 255]]
    assert pipeline_lib._truncated(values).tolist() == [[0, 0, 254, 255, 255]]


@pytest.mark.slow
def test_a_thought_can_be_handed_back():
    made = PIPELINE.compose("one", [FIRST], think=True, seed=1)
    assert made.plan.grid is None and 0 < len(made.plan.cot) <= 8 and made.candidates[0].score < 0
    again = PIPELINE.compose("one", [FIRST], plan=Plan.from_json(made.plan.to_json()), seed=1)
    np.testing.assert_array_equal(again.pixels, made.pixels)
    assert again.given and "plan" in made.seconds
    other = PIPELINE.compose("one", [FIRST], plan=Plan("something else"), seed=1)
    assert (other.pixels != made.pixels).any()
    assert not PIPELINE.compose("one", [FIRST], seed=1).plan.cot


def test_thoughts_are_greedy_or_sampled_one_for_each_candidate():
    greedy = PIPELINE.compose("one", think=True, candidates=2)
    assert len({each.plan.cot for each in greedy.candidates}) == 1 and not greedy.scored
    sampled = {"think": True, "do_sample": True, "text_temperature": 5.0}
    several, again = (PIPELINE.compose("one", candidates=2, **sampled) for _ in range(2))
    thoughts = [[each.plan.cot for each in made.candidates] for made in (several, again)]
    assert thoughts[0] == thoughts[1] and len(set(thoughts[0])) == 2 and several.scored
    assert PIPELINE.compose("one", **sampled).plan.cot == thoughts[0][0]


def test_the_size_of_what_is_drawn():
    """A size that is asked for; the source's; BAGEL's rule, where sizes are free: that of the last image."""
    free = {"image_shapes": None, "cfg_text_scale": 1.0, "cfg_img_scale": 1.0}
    assert PIPELINE.compose("one", size=(16, 48), **free).pixels.shape == (16, 48, 3)
    assert FREE.compose("one", [FIRST, random_image(9, 40, 24)], **free).pixels.shape == (40, 24, 3)
    source, other = random_image(4, 24, 32), random_image(5, 32, 24)
    made = FREE.compose("make it <image 2>", [other], source=source, **free)
    assert made.pixels.shape == (24, 32, 3)
    assert [image.role for image in made.sentence.images] == ["source", "reference"]
    made = FREE.compose("make it <image 2>", [other], source=source, size=(16, 16), **free | RELEASED)
    assert made.pixels.shape == (32, 24, 3)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"noise: \(1, 15, 12\), but images of 32 x 24 need \(1, 12, 12\)"):
        _drawn(["one"], WIDE)
    with pytest.raises(UserError, match="candidates"):
        PIPELINE.compose("one", candidates=0)
    with pytest.raises(UserError, match="multiples of 8"):
        PIPELINE.compose("one", size=(30, 24))
    with pytest.raises(UserError, match="layout"):
        PIPELINE.compose("one", plan=Plan("x", np.zeros((8, 8), np.int8)))
    assert OPTIONS.use_planner is False
