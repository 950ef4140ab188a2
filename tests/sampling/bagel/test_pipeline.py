"""BAGEL's own inference on a model of odd sizes: against training's forward pass, and each trap by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.bagel.toy import CONFIG, FIRST, OPTIONS, PACKING, PIECES, PIPELINE, SECOND, TOKENIZER, contexts_of
from sampling.toy import picture

from macro.diffusion.guidance import Guidance, bagel, guide
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import pack_sentence
from macro.inputs.rows import make_row
from macro.models.composer import Composer
from macro.models.vae import encode_images
from macro.sampling.bagel import pipeline as bagel_pipeline
from macro.sampling.bagel.contexts import NAMES, Contexts
from macro.sampling.bagel.pipeline import BagelPipeline
from macro.sampling.bagel.sizes import prepared
from macro.sampling.draw import guided_velocity
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

PLACES = 12  # latent tokens of the picture to draw, 32 x 24 pixels
NOISE = np.asarray(jax.random.normal(jax.random.key(5), (2, PLACES, CONFIG.latent_channels)))


def _training_velocity(context: str) -> jax.Array:
    """Velocity at t = 1 of the packed training row whose conditions were dropped to `context`."""
    spans = [Image(FIRST), Text("one"), Image(SECOND), Text("and two"), Target(np.zeros((32, 24, 3), np.uint8))]
    chances = {name: float(name == context) for name in ("no_text", "no_image", "null")}
    packing = dataclasses.replace(PACKING, cfg_dropout=CfgDropout(**chances))
    packed = pack_sentence(Sentence(tuple(spans)), TOKENIZER, packing, np.random.default_rng(0))
    row = jax.tree.map(lambda a: jnp.asarray(a)[None], make_row([packed], packing))
    drawn = np.flatnonzero(row["latent"]["loss"][0])
    return _packed_velocity(row, drawn)[:, drawn]


@jax.jit
def _packed_velocity(row, drawn):
    table = encode_images(PIPELINE.params["vae"], row["pixels"], CONFIG)
    x = jnp.take_along_axis(table, row["latent"]["source"][..., None], axis=1).at[0, drawn].set(NOISE[0])
    time = jnp.zeros(x.shape[:2]).at[0, drawn].set(1.0)
    return Composer(CONFIG).apply({"params": PIPELINE.params["composer"]}, row, x, time)["velocity"]


def _one_step(pieces, noise=NOISE[:1], **changes):
    """The velocity of a drawing of one step."""
    return noise - np.asarray(PIPELINE.interleave(pieces, noise=noise, **changes).latents)


@jax.jit
def _velocity(cache, frame, latent):
    x = jnp.asarray(NOISE[:1])
    params = PIPELINE.params["composer"]
    return guided_velocity(params, cache, frame, latent, x, jnp.float32(1), config=CONFIG, guidance=Guidance())[0]


@pytest.fixture(scope="module")
def in_training():
    return {context: _training_velocity(context) for context in NAMES}


def test_each_context_is_what_training_showed(in_training):
    contexts = contexts_of(PIECES)
    for name, expected in in_training.items():
        expected = np.asarray(expected)
        drawn = _velocity([contexts.side_by_side((name,))], *contexts.targets((name,), 1, (32, 24)))
        np.testing.assert_allclose(drawn, expected, atol=5e-5 * np.abs(expected).max(), err_msg=name)


def test_a_step_adds_the_contexts_up(in_training):
    expected = guide(bagel(3.0, 2.0), in_training)
    np.testing.assert_allclose(_one_step(PIECES), expected, atol=1e-4 * np.abs(expected).max())


def test_contexts_differ(in_training):
    """Otherwise the tests above could not see them mixed up."""
    full, no_text, no_image = map(np.asarray, in_training.values())
    assert min(np.abs(a - b).max() for a, b in ((full, no_text), (full, no_image), (no_text, no_image))) > 0.01


def _ends(contexts: Contexts) -> dict:
    """(order, rope) at the end of each context."""
    return {name: (context.end.order, context.end.rope) for name, context in contexts.of.items()}


def test_where_contexts_end_in_both_modes():
    first, second = 17 + 20, 12 + 14  # tokens: 15 latents and 18 patches, 10 and 12, and two marks each
    texts = [len(TOKENIZER.encode(text)) + 2 for text in ("one", "and two")]
    assert _ends(contexts_of(PIECES)) == {
        "full": (first + second + sum(texts), 4 + sum(texts)),
        "no_text": (first + second, 4),
        "no_image": (sum(texts), 4 + sum(texts)),
    }
    assert _ends(contexts_of(PIECES, parity=True)) == {
        "full": (first + second + sum(texts), 4 + sum(texts)),
        "no_text": (first + second + texts[0], 4 + texts[0]),  # only the last text is gone
        "no_image": (sum(texts), sum(texts)),  # no gaps
    }


def test_text_before_the_last_picture():
    contexts = contexts_of(["one", FIRST], parity=True)
    assert contexts.of["no_text"] is contexts.of["full"]
    assert _ends(contexts_of(["one", FIRST]))["no_text"] == (37, 2)


def test_pictures_before_all_text_are_read_once_for_both_contexts_that_show_them():
    contexts = contexts_of([FIRST, SECOND])
    assert contexts.of["no_text"] is contexts.of["full"] is not contexts.of["no_image"]
    contexts.text(TOKENIZER.encode("one"))
    assert contexts.of["no_text"] is not contexts.of["full"]
    apart = contexts_of(["one", FIRST])
    assert apart.of["no_text"] is not apart.of["full"]


@pytest.mark.parametrize("parity, readers", [(False, ["full", "no_image"]), (True, ["full"])])
def test_who_reads_a_thought(parity, readers):
    contexts = contexts_of(["one"], parity=parity)
    before = dict(contexts.of)
    contexts.thought(TOKENIZER.encode("hm"))
    assert [name for name in NAMES if contexts.of[name] is not before[name]] == readers


def test_buffers_grow_when_they_have_to():
    roomy, tight = (contexts_of(["one", FIRST], ("full",), places).of["full"].cache for places in (200, 1))
    assert roomy["k"].shape[2] > tight["k"].shape[2] > 64
    most = tight["k"].shape[2]
    np.testing.assert_allclose(roomy["v"][:, :, :most], tight["v"], atol=1e-5)
    assert all(np.array_equal(roomy["meta"][f][:, :most], values) for f, values in tight["meta"].items())


def test_pictures_of_a_batch_do_not_touch_each_other():
    """`global` renorm by default; one norm for all is what parity brings back."""
    both = _one_step(["one"], NOISE * [[[1.0]], [[30.0]]])
    alone = _one_step(["one"], NOISE[:1])
    np.testing.assert_allclose(both[:1], alone, atol=1e-4 * np.abs(alone).max())
    together = _one_step(["one"], NOISE * [[[1.0]], [[30.0]]], parity=True, num_timesteps=2)
    assert np.abs(together[:1] - alone).max() > 1e-2 * np.abs(alone).max()


def test_parity_makes_one_step_less():
    np.testing.assert_allclose(
        _one_step(["one"], parity=True, num_timesteps=2), _one_step(["one"], num_timesteps=1), atol=1e-5
    )


def test_image_guidance_without_text_guidance():
    """How the stages follow from the scales is tested with `bagel` itself."""
    assert bagel_pipeline._guidance(dataclasses.replace(OPTIONS, cfg_text_scale=1.0)).contexts == ("full", "no_image")
    parity = dataclasses.replace(OPTIONS, cfg_text_scale=1.0, num_timesteps=2, parity=True)
    assert bagel_pipeline._guidance(parity).contexts == ("full",)


def test_posterior_is_the_mean_unless_asked_for():
    mean, again = (_one_step(PIECES, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(mean, again)
    drawn, same, other = (_one_step(PIECES, sample_posterior=True, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(drawn, same)
    assert np.abs(drawn - mean).max() > 1e-4 and np.abs(drawn - other).max() > 1e-4


def test_noise_follows_from_the_seed():
    first, same, other = (PIPELINE.interleave(["one"], seed=seed).latents for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.1


def test_reuse_runs_the_layers_in_some_steps():
    """Guidance ends on the way (`cfg_interval`), and the full context goes on from what it had."""
    asked = {"cfg_interval": (0.5, 1.0), "num_timesteps": 10, "seed": 3}
    whole = PIPELINE.interleave(PIECES, **asked)
    some = PIPELINE.interleave(PIECES, reuse={"name": "taylor", "interval": 3, "order": 1}, **asked)
    assert (whole.full_steps, some.full_steps) == (10, 4)
    assert 0 < np.abs(whole.latents - some.latents).mean() < 0.5 * np.std(whole.latents)


def test_levels_are_rounded_or_cut_off():
    values = np.float32([[-2, -1, 0.999, 1.0, 2]])
    assert bagel_pipeline.to_uint8(values).tolist() == [[0, 0, 255, 255, 255]]
    assert bagel_pipeline._cut_off(values).tolist() == [[0, 0, 254, 255, 255]]


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


def test_thoughts_are_greedy_or_sampled():
    def thought(**changes):
        return PIPELINE.interleave(["one"], think=True, **changes).thought

    assert thought(seed=0) == thought(seed=1)
    sampled = {"do_sample": True, "text_temperature": 5.0}
    assert thought(seed=0, **sampled) == thought(seed=0, **sampled) != thought(seed=1, **sampled)


def test_compose_reads_pictures_where_they_are_named():
    by_name = PIPELINE.compose("<image 1>one<image 2>and two", [FIRST, SECOND], candidates=2)
    drawn = PIPELINE.interleave(PIECES, pictures=2)
    for candidate, pixels in zip(by_name.candidates, drawn.pictures, strict=True):
        np.testing.assert_array_equal(candidate.pixels, pixels)
    assert by_name.pixels.shape == (32, 24, 3) == (*by_name.sentence.target.size, 3)
    assert PIPELINE.compose("one", [SECOND], image_shapes=None).pixels.shape == (40, 16, 3)
    assert PIPELINE.compose("one", size=(16, 48)).pixels.shape == (16, 48, 3)


@pytest.mark.parametrize(
    "call, said",
    [
        ({"pieces": []}, "text or a picture"),
        ({"pieces": ["one"], "pictures": 0}, "candidates"),
        ({"pieces": ["one"], "size": (30, 24)}, "multiples of 8"),
        ({"pieces": ["one"], "num_timesteps": 0}, "num_timesteps"),
        ({"pieces": ["one"], "reuse": {"name": "taylor", "limit": 0.1}}, "sampling.reuse.*limit"),
        ({"pieces": [FIRST], "vae_transform": (64, 8, 8)}, "vae_transform"),
    ],
)
def test_mistakes_are_named(call, said):
    with pytest.raises(UserError, match=said):
        PIPELINE.interleave(**call)
    with pytest.raises(UserError, match="layout"):
        PIPELINE.compose("one", plan=Plan("x", np.zeros((8, 8), np.int8)))


@pytest.mark.slow
def test_given_pictures_share_an_area_as_in_training():
    """`packing.reference_pixels` holds for sampling too; parity, which knows no such rule, leaves it."""
    stride = CONFIG.pixels_per_token
    areas = [(2 * stride) ** 2, stride**2]
    packing = dataclasses.replace(PACKING, reference_pixels=((1, areas[0]), (12, areas[1])))
    picture = np.full((200, 200, 3), 9, np.uint8)
    for count, side in ((1, 2 * stride), (2, stride)):
        assert prepared(picture, OPTIONS, CONFIG, packing.images.reference_area(count))[0].shape == (side, side, 3)
    shared, alone = (BagelPipeline(PIPELINE.params, CONFIG, TOKENIZER, p, OPTIONS) for p in (packing, PACKING))
    pieces = [picture, picture, "two"]
    used = {
        name: pipeline.interleave(pieces, num_timesteps=2, parity=parity).contexts.of["full"].used
        for name, pipeline, parity in (("shared", shared, False), ("alone", alone, False), ("parity", shared, True))
    }
    assert used["shared"] < used["alone"] == used["parity"]


def test_an_edit_has_the_size_of_its_source():
    """The source comes first and lends its size, which by BAGEL's rule the last picture would do."""
    source, other = picture(4, 24, 32), picture(5, 32, 24)
    call = {"images": [other], "source": source, "image_shapes": None}
    made = PIPELINE.compose("make it <image 2>", **call)
    assert made.pixels.shape == (24, 32, 3)
    assert [image.role for image in made.sentence.images] == ["source", "reference"]
    again = PIPELINE.interleave([source, "make it ", other], image_shapes=None, like=0)
    np.testing.assert_array_equal(made.pixels, again.pictures[0])
    assert PIPELINE.interleave([source, "make it ", other], image_shapes=None).pictures[0].shape == (32, 24, 3)
