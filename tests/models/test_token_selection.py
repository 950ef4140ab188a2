import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, EXPERIMENT, random_params, training_row

from macro.kernels.token_selection.api import select_top_k
from macro.models.composer import Composer, image_ids
from macro.models.token_selection import (
    METHODS,
    TokenSelection,
    TrainingSelection,
    image_counts,
    read_selection,
    training_selection,
)
from macro.objectives import joint
from macro.sentence.plan import Plan
from macro.utils.errors import UserError

PARAMS = random_params()["composer"]
PLAN = Plan("a by", np.arange(64, dtype=np.int8).reshape(8, 8) % 3)
IMAGES = 5


@pytest.fixture(scope="module")
def row():
    return training_row(PLAN, "full")


def outputs(row, selection=None):
    batch, x = row
    keys = jax.random.split(jax.random.key(0), 1)
    training = None if selection is None else TrainingSelection(keys, selection, IMAGES)
    return jax.jit(Composer(CONFIG).apply)({"params": PARAMS}, batch, x, jnp.full(x.shape[:2], 0.3), training)


def close(a, b, where):
    np.testing.assert_allclose(a[where], b[where], atol=2e-5 * float(jnp.max(jnp.abs(b))))


def test_keeping_everything_changes_nothing(row):
    all_of_it, plain = outputs(row, TokenSelection(keep=1.0)), outputs(row)
    text, latent = (np.asarray(row[0][name]["segment_ids"] >= 0) for name in ("text", "latent"))
    close(all_of_it["text"], plain["text"], text)
    close(all_of_it["velocity"], plain["velocity"], latent)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_later_layers_see_the_kept_tokens_only(row, method):
    """The shorter buffers against whole ones in which tokens that were not kept turn into padding."""
    batch, x = row
    selection = TokenSelection(keep=0.5, method=method, layers=(0,))
    training = TrainingSelection(jax.random.split(jax.random.key(0), 1), selection, IMAGES)

    def by_padding(model):
        und, gen = model._embed_und(batch["text"], batch["vision"]), model.embed_latent(batch["latent"], x, t)
        rotations, meta = model._rope_and_metadata(batch["text"], batch["vision"], batch["latent"])
        probe, end = training.probe(batch, image_ids(batch), meta, 2)
        und, gen, (_, values), asked = model.mot.run(und, gen, rotations, meta, (), probe, (0, end))
        kept, stays = training.select(batch, meta, image_ids(batch), values, asked, 2)
        seen = jnp.zeros(batch["vision"]["segment_ids"].shape, bool)
        seen = seen.at[jnp.arange(1)[:, None], kept.indices].max(kept.valid)
        text = jnp.ones(batch["text"]["segment_ids"].shape, bool)
        meta = meta | {"segment_ids": jnp.where(jnp.concatenate([text, seen, stays], axis=1), meta["segment_ids"], -1)}
        und, gen, *_ = model.mot.run(und, gen, rotations, meta, part=(end, 2))
        return model.mot.und_norm(und), model.diffusion_head.velocity(model.mot.gen_norm(gen)), seen

    t = jnp.full(x.shape[:2], 0.3)
    und, velocity, seen = Composer(CONFIG).apply({"params": PARAMS}, method=by_padding)
    assert int(jnp.sum(seen)) == 3 and int(jnp.sum(batch["vision"]["segment_ids"] >= 0)) == 6
    ours, plain = outputs(row, selection), outputs(row)
    text = np.asarray(batch["text"]["segment_ids"] >= 0)
    close(ours["text"], und[:, : text.shape[1]], text)
    noised = np.asarray(batch["latent"]["loss"])
    close(ours["velocity"], velocity, noised)
    assert jnp.max(jnp.abs(ours["velocity"] - plain["velocity"])[noised]) > 1e-3


@pytest.mark.slow
def test_the_loss_has_gradients_everywhere(row):
    batch, _ = row
    config = EXPERIMENT.copy_and_resolve_references()
    config.update({"tasks": ("compose",), "loss": {"ce_weight": 0.5, "mse_weight": 0.5}, "packing": {"samples": 1}})
    config.token_selection = {"keep": 0.5, "method": "text", "layers": (0,)}
    params = random_params()
    totals = joint.totals(batch, config)

    def loss(composer):
        return joint.loss(params | {"composer": composer}, batch, jax.random.key(0), config, totals)[0]

    value, slopes = jax.jit(jax.value_and_grad(loss))(params["composer"])
    assert np.isfinite(value)
    missing = [path for path, slope in jax.tree.leaves_with_path(slopes) if not float(jnp.max(jnp.abs(slope))) > 0]
    # The last layer's understanding expert has keys and values that latents see, and queries of words that predict.
    assert not missing, missing


@pytest.mark.slow
def test_the_shorter_buffer_holds_what_any_row_keeps():
    """Rows of images of all sizes: nothing that the quotas grant is lost for want of places."""
    rng = np.random.default_rng(0)
    training = TrainingSelection(None, TokenSelection(keep=0.3), IMAGES)
    for _ in range(50):
        sizes = rng.integers(0, 9, IMAGES)
        own = jnp.asarray(np.repeat(np.arange(IMAGES), sizes)[None], jnp.int32)
        if not own.size:
            continue
        share = jnp.ceil(0.3 * image_counts(own, IMAGES) - 1e-6).astype(jnp.int32)
        kept = select_top_k(jnp.zeros(own.shape), own, share, training.capacity(own.shape[1], 64))
        assert int(jnp.sum(kept.valid)) == int(jnp.sum(share))


def test_a_section_of_a_config():
    empty = {"keep": None, "budget": None, "method": "text", "min_tokens": 1, "layers": (), "cross_image_weight": 1.0}
    assert read_selection(None, "token_selection") is read_selection(empty, "token_selection") is None
    assert read_selection(empty | {"keep": 1.0}, "token_selection") is None
    read = read_selection(empty | {"budget": 9, "layers": [1]}, "token_selection")
    assert read == TokenSelection(budget=9, layers=(1,))
    with pytest.raises(UserError, match="config.sampling.token_selection: unknown key 'kep'"):
        read_selection({"kep": 0.5}, "sampling.token_selection")
    with pytest.raises(UserError, match="config.token_selection.budget='a': must be of type int"):
        read_selection({"budget": "a"}, "token_selection")


@pytest.mark.parametrize("softmax", [True, False])
def test_packed_sentences_and_noised_targets_do_not_ask_for_each_other(row, softmax):
    """What layers answer about an image hangs on its own sentence's given words alone."""
    batch, x = row
    streams = {name: batch[name] for name in ("text", "vision", "latent")}
    two = jax.tree.map(lambda a: jnp.concatenate([a, a], axis=1), streams)
    for stream in two.values():
        half = stream["segment_ids"].shape[1] // 2
        moved = jnp.where(stream["segment_ids"] >= 0, 1, -1)
        stream["segment_ids"] = stream["segment_ids"].at[:, half:].set(moved[:, half:])
    x = jnp.concatenate([x, x], axis=1)
    method = "text" if softmax else "blocks"
    training = TrainingSelection(None, TokenSelection(keep=0.5, method=method, layers=(1,)), IMAGES)

    def answers(streams, x):
        def ask(model):
            und = model._embed_und(streams["text"], streams["vision"])
            gen = model.embed_latent(streams["latent"], x, jnp.full(x.shape[:2], 0.3))
            rotations, meta = model._rope_and_metadata(streams["text"], streams["vision"], streams["latent"])
            probe, _ = training.probe(streams, image_ids(streams), meta, 2)
            return model.mot.run(und, gen, rotations, meta, (), probe)[3][0][1], meta

        return Composer(CONFIG).apply({"params": PARAMS}, method=ask)

    plain, meta = answers(two, x)
    first = np.asarray((meta["segment_ids"][0] == 0) & (image_ids(two)[0] >= 0))
    # The second sentence's words, the targets, and what is to be learnt of the plan change; the first's answers do not.
    text, half = two["text"], two["text"]["ids"].shape[1] // 2
    changed = (text["labels"] >= 0).at[:, half:].set(True)
    other = two | {"text": text | {"ids": jnp.where(changed, (text["ids"] + 7) % 90, text["ids"])}}
    found, _ = answers(other, x + jnp.where(two["latent"]["loss"], 5.0, 0.0)[..., None])
    np.testing.assert_allclose(found[0][:, first], plain[0][:, first], atol=1e-6)
    assert float(jnp.max(jnp.abs(plain[0][:, first]))) > 1e-3


def test_what_training_does_not_have():
    for select, said in (({"budget": 9}, "budget"), ({"keep": 0.5, "method": "images"}, "method")):
        with pytest.raises(UserError, match=f"config.token_selection.{said}"):
            training_selection({"token_selection": select})
