"""macro.compile: mistakes in one line; a small config compiled for TPUs that are not here, and its figures."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from macro.compile import HELPS, main
from macro.models.vae import VAE
from macro.models.variants import config_from_name
from macro.utils.config import run

TINY = Path(__file__).parents[1] / "configs" / "tiny.py"


def call(capsys, *flags):
    with pytest.raises(SystemExit) as left:
        run(main, ["compile", f"--config={TINY}", *flags], **HELPS)
    written = capsys.readouterr()
    return left.value.code, written.out, written.err


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "--topology is missing"),
        (("--topology=v5e:3x3",), "--topology=v5e:3x3: v5e has no slice of 3x3; the nearest is v5e:2x4"),
        (("--topology=v5p:64",), "--topology=v5p:64: v5p has no slice of 64; the nearest is v5p:4x4x4"),
        (("--topology=v5p",), "--topology=v5p: write chip:shape, such as v5p:16x16x16"),
        (("--topology=v5f:2x2",), "unknown TPU chip 'v5f'; did you mean 'v5p'?"),
        (("--topology=v5e:2x2", "--program=draw"), "--program=draw: choose one of train, sample"),
        (("--topology=v5e:2x2", "--references=0-12"), "--references=0-12: write numbers with commas"),
        (("--topology=v5e:2x2", "--references=13"), "--references=13: a sentence has 0 to 12 references"),
        (("--topology=v5e:2x2", "--slices=0"), "--slices=0: must be at least 1"),
    ],
)
def test_mistakes_are_named(capsys, flags, line):
    code, out, err = call(capsys, *flags)
    assert code == 2 and out == "" and err.startswith(f"error: {line}"), err


@pytest.mark.slow
@pytest.mark.aot_tpu
class TestAheadOfTime:
    @pytest.fixture(autouse=True)
    def _libtpu(self):
        pytest.importorskip("libtpu", reason="compiling for a TPU ahead of time needs the libtpu wheel")

    def test_a_batch_that_the_slice_does_not_divide(self, capsys):
        code, _, err = call(capsys, "--topology=v5e:2x2", "--config.batch_size=6")
        assert code == 2 and "config.batch_size=6 does not divide over 4 devices; take 4 or 8" in err

    def test_arithmetic_is_six_times_parameters_times_tokens_and_attention(self, capsys):
        """At a size where that rules: twelve layers of width 768, a row a chip."""
        model = config_from_name("M/64")
        sizes = {"text": 640, "vision": 640, "latent": 1280}
        code, out, _ = call(
            capsys, "--topology=v5e:2x2", "--json", "--config.batch_size=4", "--config.model.variant=M/64",
            *(f"--config.packing.{name}={tokens}" for name, tokens in sizes.items()),
        )  # fmt: skip
        found = json.loads(out)
        assert code == 0 and found["fits"] and found["bound_by"] in ("compute", "memory", "interconnect")
        llm, vision, rows = model.llm, model.vision, 4
        q, kv = llm.heads * llm.head_dim, llm.kv_heads * llm.head_dim
        expert = llm.layers * llm.width * (2 * q + 2 * kv + 3 * llm.mlp)
        tower = vision.layers * vision.width * (4 * vision.width + 2 * vision.mlp)
        dense = expert * sum(sizes.values()) + tower * sizes["vision"] + llm.vocab * llm.width * sizes["text"]
        ends = 2 * llm.width * (llm.width + 256) * sizes["latent"] + llm.width * (vision.width + llm.width) * 640
        encoder = VAE(model.vae)
        image = jnp.zeros((1, 64, 64, 3))
        params = encoder.init(jax.random.key(0), image, jax.random.key(0))
        one = jax.jit(lambda x: encoder.apply(params, x, method=VAE.encode)).lower(image).compile().cost_analysis()
        expected = 6 * dense * rows + 4 * one["flops"] * rows
        rest = 6 * ends * rows
        counted = found["flops"] - found["kernel_flops_per_device"] * 4
        assert expected < counted < 1.03 * (expected + rest)
        # Forward, queries' and keys' and values' gradient: 4 + 6 + 8 for each pair of tokens, all pairs of a row.
        tokens = sum(sizes.values())
        pairs = 18 * rows * llm.layers * q * tokens**2
        towers = 18 * rows * vision.layers * vision.width * sizes["vision"] ** 2
        assert found["kernel_flops_per_device"] * 4 == pairs + towers

    def test_what_does_not_fit_is_named_and_leaves_with_1(self, capsys):
        code, out, _ = call(capsys, "--topology=v5e:1x1", "--config.batch_size=4096")
        assert code == 1 and "DOES NOT FIT" in out and out.count("  largest") == 3
        assert "GiB of 15.75 GiB usable" in out

    def test_drawing_by_number_of_references(self, capsys):
        flags = ("--config.parallel.preset=fsdp+tensor", "--config.parallel.tensor=2", "--program=sample")
        code, out, err = call(capsys, "--topology=v6e:2x2", "--references=0,12", "--json", *flags)
        found = json.loads(out)
        assert code == 0, err
        few, many = found["rows"]
        assert (few["references"], many["references"]) == (0, 12) and many["context_tokens"] > few["context_tokens"]
        assert many["peak_bytes"] > few["peak_bytes"] and many["loop_seconds"] > 0
        assert found["params"] > 1e6 and found["collective_bytes"]
