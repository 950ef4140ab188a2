"""One step: what it changes, what it leaves alone, what it reports."""

import jax
import numpy as np
import pytest
from training.stand_in import Data, Objective, get_config

from macro.parallel.mesh import ParallelConfig, make_mesh, shard_batch
from macro.training.state import averaged, check_frozen, create, frozen
from macro.training.step import make_step
from macro.utils import tree
from macro.utils.errors import UserError


@pytest.fixture
def world():
    config = get_config()
    mesh = make_mesh(ParallelConfig())
    lay = lambda batch: shard_batch(batch, range(config.batch_size), config.batch_size, mesh)  # noqa: E731
    return config, lay, make_step(Objective, config, mesh), lambda: create(Objective, config, mesh)


def numpy_of(state):
    return jax.tree.map(np.array, state)


def test_frozen_parameters_have_no_gradient_no_average_and_no_optimizer_state(world):
    config, lay, step, fresh = world
    before = numpy_of(fresh())
    after, _ = step(fresh(), lay(next(Data())))
    assert np.array_equal(after.params["eye"]["kernel"], before.params["eye"]["kernel"])
    assert not np.array_equal(after.params["line"]["kernel"], before.params["line"]["kernel"])
    assert set(after.ema) == set(after.opt_state[1][0].mu) == {"line"}
    assert tree.flatten(averaged(after)).keys() == tree.flatten(after.params).keys()


def test_the_average_follows_its_equation(world):
    config, lay, step, fresh = world
    before = numpy_of(fresh())
    after = numpy_of(step(fresh(), lay(next(Data())))[0])
    # The first decay is min(.9, 1/10).
    wanted = 0.1 * before.ema["line"]["kernel"] + 0.9 * after.params["line"]["kernel"]
    assert np.allclose(after.ema["line"]["kernel"], wanted, atol=1e-6)


def test_metrics_count_examples_and_fill(world):
    config, lay, step, fresh = world
    data = Data()
    state, metrics = step(fresh(), lay(next(data)))
    state, metrics = step(state, lay(next(data)))
    assert int(metrics["examples_seen"]) == len(data.served) == 12
    assert float(metrics["fill/text"]) == 0.75
    assert int(state.step) == 2
    assert float(metrics["lr"]) == pytest.approx(0.05 * 2 / 3)
    assert np.isnan(metrics["draw/edit"])


def test_noise_follows_from_seed_and_step(world):
    """Same state and batch: same loss bit for bit. Another step number: other noise."""
    config, lay, step, fresh = world
    batch = lay(next(Data()))
    losses = [float(step(fresh(), batch)[1]["loss"]) for _ in range(2)]
    later = float(step(fresh().replace(step=jax.numpy.int32(5)), batch)[1]["loss"])
    assert losses[0] == losses[1] != later


def test_config_freezes_more():
    assert frozen(Objective, get_config()) == ("^eye/",)
    assert frozen(Objective, get_config(freeze=("bias$",))) == ("^eye/", "bias$")
    with pytest.raises(UserError, match="config.freeze: the pattern 'scale' matches none"):
        check_frozen(Objective, get_config(freeze=("scale",)))
    with pytest.raises(UserError, match="nothing to train"):
        check_frozen(Objective, get_config(freeze=("^line/",)))


def test_a_batch_in_parts_takes_the_same_step(monkeypatch):
    """Rows of unequal weight: means over the whole batch, not means of means. The stand-in's noise is taken out."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(), dtype=float: jax.numpy.ones(shape))
    mesh = make_mesh(ParallelConfig())
    batch = next(Data(batch_size=4))
    batch["text"]["segment_ids"][0, 1:] = -1
    ends = []
    for parts in (1, 2, 4):
        config = get_config(batch_size=4, grad_accum_steps=parts)
        step = make_step(Objective, config, mesh)
        ends.append(step(create(Objective, config, mesh), shard_batch(batch, range(4), 4, mesh)))
    for state, metrics in ends[1:]:
        assert float(metrics["loss"]) == pytest.approx(float(ends[0][1]["loss"]), rel=1e-5)
        assert float(metrics["grad_norm"]) == pytest.approx(float(ends[0][1]["grad_norm"]), rel=1e-5)
        for path, leaf in tree.flatten(state.params).items():
            np.testing.assert_allclose(leaf, tree.flatten(ends[0][0].params)[path], atol=1e-6)
