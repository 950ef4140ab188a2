import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, continuation_of, prompt_of, random_params, sentence, training_row

from macro.diffusion.flow import sampling_times
from macro.diffusion.guidance import Guidance, guide
from macro.diffusion.step_cache import TaylorSeer, TeaCache
from macro.inputs.conditioning import CONTEXTS
from macro.models.composer import Composer
from macro.sampling.denoise import candidate_keys, decode_images, denoise, noise_of
from macro.sampling.prefill import gathered, read_plans, read_prompt
from macro.sentence.plan import Plan

PARAMS = random_params()
GRID = np.arange(64, dtype=np.int8).reshape(8, 8) % 3
PLANS = [Plan("a by", GRID), Plan("longer words", GRID.T.copy())]
INSET = Guidance.from_scales(3.0, cfg_overall_scale=2.0)
ONE_STEP = sampling_times(2, 1.0)


def _draw(guidance, plans=PLANS, times=ONE_STEP, seed=0):
    return _drawn(guidance, plans, times, seed)[0]


def _drawn(guidance, plans=PLANS, times=ONE_STEP, seed=0, step_cache=None):
    """Tokens, and how many steps ran the layers."""
    prompt = prompt_of([sentence()], guidance.contexts)
    caches, _ = read_prompt(PARAMS, prompt, CONFIG)
    ends = [prompt.contexts[name] for name in prompt.distinct]
    cache = gathered([None if n is None else caches[n] for n in ends], 1, CONFIG)
    after = continuation_of([sentence()], [plans], prompt)
    counts = {"contexts": len(ends), "kept": after.kept, "candidates": len(plans)}
    read, *_ = read_plans(PARAMS["composer"], cache, after.plan, config=CONFIG, **counts)
    given = [cache, read], after.frame, after.latent, _noise(seed, len(plans)), times
    return denoise(PARAMS["composer"], *given, config=CONFIG, guidance=guidance, step_cache=step_cache)


def _noise(seed, candidates):
    _, keys = candidate_keys(seed, candidates)
    return noise_of(keys, 16, CONFIG.latent_channels)


@jax.jit
def _training_velocity(row, x):
    out = Composer(CONFIG).apply({"params": PARAMS["composer"]}, row, x, jnp.ones(x.shape[:2]))
    return out["velocity"][0, :16]


@pytest.mark.parametrize("guidance", [INSET, Guidance.from_scales(3.0, 2.0, cfg_renorm_type="channel")])
def test_a_step_is_the_training_forward_pass_in_every_context(guidance):
    """Through caches, contexts and guidance, against packed rows that training drops conditions from."""
    drawn = _draw(guidance)
    for number, plan in enumerate(PLANS):
        noise = _noise(0, number + 1)[number]
        velocities = {}
        for context in guidance.contexts:
            row, x = training_row(plan, context)
            velocities[context] = _training_velocity(row, x.at[0, :16].set(noise))[None]
        expected = noise - guide(guidance, velocities)[0]
        np.testing.assert_allclose(drawn[number], expected, rtol=1e-3, atol=2e-4 * np.abs(expected).max())


def test_all_contexts_differ():
    """Otherwise the test above could not see a context mixed up with another."""
    row_velocities = [_training_velocity(*training_row(PLANS[0], context)) for context in CONTEXTS]
    for a in range(4):
        for b in range(a):
            assert float(jnp.abs(row_velocities[a] - row_velocities[b]).max()) > 0.01


def test_outside_its_interval_guidance_is_the_full_context_alone():
    late = Guidance.from_scales(3.0, 2.0, cfg_interval=(2.0, 3.0))
    np.testing.assert_allclose(_draw(late), _draw(Guidance()), rtol=1e-4, atol=1e-4)


def test_noise_follows_from_seed_and_candidate():
    same = _draw(Guidance(), [PLANS[0]] * 2)
    assert not np.allclose(same[0], same[1])
    assert not np.allclose(same, _draw(Guidance(), [PLANS[0]] * 2, seed=1))
    np.testing.assert_array_equal(same, _draw(Guidance(), [PLANS[0]] * 2))


WHILE_NOISY = Guidance.from_scales(3.0, 2.0, cfg_interval=(0.5, 1.0))  # three contexts in the first steps, then one
WHEN_CLEAR = Guidance.from_scales(3.0, 2.0, cfg_interval=(0.0, 0.5))


@pytest.mark.parametrize("guidance, step_cache", [(INSET, TaylorSeer(1, 0)), (WHEN_CLEAR, TeaCache(1e-6))])
def test_step_cache_that_skips_nothing_changes_nothing(guidance, step_cache):
    times = sampling_times(11, 1.0)
    expected, steps = _drawn(guidance, times=times)
    tokens, full = _drawn(guidance, times=times, step_cache=step_cache)
    assert full == steps == 10
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "guidance, step_cache, expected",
    [
        (INSET, TaylorSeer(3, 1), 4),  # 0 1 4 7
        (WHILE_NOISY, TaylorSeer(3, 1), 4),
        (WHEN_CLEAR, TaylorSeer(3, 1), 3 + 3),  # 0 1 4, and anew where guidance sets in: 5 6 9
        (WHEN_CLEAR, TeaCache(100.0), 1 + 2),
    ],
)
def test_step_cache_runs_the_layers_in_some_steps_and_stays_near(guidance, step_cache, expected):
    times = sampling_times(11, 1.0)
    whole, _ = _drawn(guidance, times=times)
    tokens, full = _drawn(guidance, times=times, step_cache=step_cache)
    assert full == expected
    assert 0 < np.sqrt(np.mean((tokens - whole) ** 2)) < 0.5 * np.std(whole)


def test_images_have_sixteen_pixels_a_token():
    tokens = jnp.zeros((2, 8, CONFIG.latent_channels))
    assert decode_images(PARAMS["vae"], tokens, rows=2, columns=4, config=CONFIG).shape == (2, 32, 64, 3)
