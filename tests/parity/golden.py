"""Golden folders: what the reference implementation computed, and the models and tokens that go with it.

Which folders: those of the environment variable `BAGEL_GOLDENS` (paths separated by `:`); without it
`../shared/parity/bagel` beside the repository; without that the small copy in `tests/parity/goldens`
(`python tests/parity/shrink.py` makes it). All sizes come from the folder's `config.json`.
"""

import json
import os
from functools import cached_property
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from macro.inputs.packing import PackingConfig
from macro.models.checkpoints.bagel.checkpoint import LATENT_TABLE, VISION_TABLE
from macro.models.checkpoints.bagel.param_map import flax_param
from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig

# Position tables, which upstream stores and this library computes.
FIXED = (LATENT_TABLE, VISION_TABLE)
TOLERANCE = 2e-5  # of the tensor's scale, float32, matmul precision "highest"

_HERE = Path(__file__).resolve().parent
_BESIDE = _HERE.parents[2] / "shared" / "parity" / "bagel"
SMALL = _HERE / "goldens" / "bagel"
# What the recorded model computes, and what this library has no other form of.
_ONE_FORM = {
    "llm": {
        "hidden_act": "silu", "qk_norm": True, "layer_module": "Qwen2MoTDecoderLayer",
        "tie_word_embeddings": False, "rope_scaling": None,
    },
    "vit": {"hidden_act": "gelu_pytorch_tanh", "rope": False, "num_channels": 3},
    "bagel": {"connector_act": "gelu_pytorch_tanh", "interpolate_pos": False},
}  # fmt: skip


def folders() -> list[Path]:
    """The golden folders of this run."""
    named = [Path(path) for path in os.environ.get("BAGEL_GOLDENS", "").split(":") if path]
    return named or [_BESIDE if _BESIDE.is_dir() else SMALL]


class ToyTokenizer:
    """The recorded runs' tokenizer; its special ids are read off the recorded tokens."""

    def __init__(self, bos: int, eos: int, image_start: int, image_end: int):
        self.bos, self.eos, self.image_start, self.image_end = bos, eos, image_start, image_end

    def encode(self, text: str) -> list[int]:
        return [ord(c) % 100 for c in text]

    def decode(self, ids) -> str:
        return "".join(chr(i % 100 + 256) for i in ids)


class Codes(ToyTokenizer):
    """The same marks, but a text is given as the characters of its ids."""

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]


class Golden:
    """One folder. Files are read when asked for; `once` keeps what several checks share.

    `partial`: files may be missing, and what needs them is skipped (the small copy).
    """

    def __init__(self, folder: Path, partial: bool | None = None):
        self.folder, self.differences = Path(folder), {}
        self.partial = self.folder.resolve() == SMALL if partial is None else partial
        self._kept = {}

    def load(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of `<name>.npz`."""
        return self.once(name, lambda: dict(np.load(self._file(f"{name}.npz"))))

    def once(self, name: str, make):
        """`make()`, the first time."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def _file(self, name: str) -> Path:
        """A file of the folder."""
        path = next(iter(sorted(self.folder.glob(name))), None)
        if path is None and self.partial:
            pytest.skip(f"the small copy has no {name}")
        if path is None:
            raise FileNotFoundError(f"{self.folder}: no {name}")
        return path

    @cached_property
    def config(self) -> dict:
        """`config.json`; fails for a model that this library does not have."""
        config = json.loads(self._file("config.json").read_text())
        for part, expected in _ONE_FORM.items():
            for key, value in expected.items():
                found = config[part].get(key, value)
                assert found == value, f"{self.folder}: {part}.{key} is {found!r}, here only {value!r}"
        return config

    @cached_property
    def model(self) -> ModelConfig:
        """The recorded sizes; without binding, which BAGEL does not have."""
        llm, vit, ae, bagel = (self.config[part] for part in ("llm", "vit", "ae", "bagel"))
        return ModelConfig(
            llm=LLMConfig(
                width=llm["hidden_size"],
                mlp=llm["intermediate_size"],
                layers=llm["num_hidden_layers"],
                heads=llm["num_attention_heads"],
                kv_heads=llm["num_key_value_heads"],
                head_dim=llm.get("head_dim") or llm["hidden_size"] // llm["num_attention_heads"],
                vocab=llm["vocab_size"],
                rope_theta=llm["rope_theta"],
                eps=llm["rms_norm_eps"],
            ),
            vision=VisionConfig(
                width=vit["hidden_size"],
                mlp=vit["intermediate_size"],
                layers=vit["num_hidden_layers"],
                heads=vit["num_attention_heads"],
                patch=vit["patch_size"],
                side=bagel["vit_max_num_patch_per_side"],
                eps=vit["layer_norm_eps"],
            ),
            vae=VAEConfig(
                channels=ae["ch"],
                multipliers=tuple(ae["ch_mult"]),
                res_blocks=ae["num_res_blocks"],
                z=ae["z_channels"],
                scale=ae["scale_factor"],
                shift=ae["shift_factor"],
            ),
            latent_patch=bagel["latent_patch_size"],
            latent_side=bagel["max_latent_size"],
            binding=False,
            timestep_shift=bagel["timestep_shift"],
        )

    @cached_property
    def packing(self) -> PackingConfig:
        """How this model's tokens lie."""
        model = self.model
        stride = model.pixels_per_token
        return PackingConfig(
            patch=model.vision.patch,
            vision_side=model.vision.side,
            latent_stride=stride,
            latent_side=model.latent_side,
            buckets=None,
            binding=False,
        )

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The composer's weights under upstream's names."""
        return load_file(self._file("bagel_*.safetensors"))

    @cached_property
    def composer(self) -> dict:
        """The composer's weights as our parameters."""
        return _ours({key: value for key, value in self.tensors.items() if key not in FIXED})["composer"]

    @cached_property
    def vae(self) -> dict:
        """The VAE's weights as our parameters."""
        return _ours(load_file(self._file("ae_*.safetensors")))["vae"]

    @property
    def has_vae(self) -> bool:
        """Whether the VAE's weights are here, which the small copy leaves out."""
        return any(self.folder.glob("ae_*.safetensors"))

    @cached_property
    def special_ids(self) -> tuple[int, int, int, int]:
        """bos, eos, start and end of an image: what frames the first text and image that were packed."""
        ids, plan = self.load("pack_none_dense")["packed_text_ids"], self.plan(0)
        kinds = [item["type"] for item in plan]
        first_text = 2 * kinds.index("text")  # before it only images, two marks each
        eos = first_text + 1 + len(self.load("samples")["s0_txt0"])
        assert kinds[0] != "text", "the first recorded sample begins with an image"
        return int(ids[first_text]), int(ids[eos]), int(ids[0]), int(ids[1])

    @property
    def tokenizer(self) -> ToyTokenizer:
        return ToyTokenizer(*self.special_ids)

    def plan(self, sample: int) -> list[dict]:
        """The recorded sequence plan of a raw sample."""
        return json.loads(str(self.load("samples")[f"s{sample}_plan"]))

    def close(self, ours, recorded, name: str, scale: float | None = None) -> None:
        """Asserts agreement within `TOLERANCE` of the recorded tensor's largest magnitude (or of `scale`)."""
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        assert ours.shape == recorded.shape, f"{name}: shape {ours.shape}, recorded {recorded.shape}"
        scale = np.abs(recorded).max() if scale is None else scale
        apart = np.abs(ours - recorded).max()
        worst = apart / scale if scale else float(apart > 0)  # all zeros agree with nothing but zeros
        self.differences[name] = max(worst, self.differences.get(name, 0))
        assert worst <= TOLERANCE, f"{name}: off by {worst:.2e} of its scale {scale:.3g}"


def _ours(tensors: dict[str, np.ndarray]) -> dict:
    """Upstream's tensors as our parameters."""
    flat = {}
    for key, value in tensors.items():
        mapped = flax_param(key)
        assert mapped is not None, f"no mapped for {key}"
        flat.setdefault(mapped.name, {})[mapped.layer] = jnp.asarray(mapped.transform.to_flax(value))
    for path, layers in flat.items():
        flat[path] = layers[None] if None in layers else jnp.stack([layers[n] for n in range(len(layers))])
    return unflatten_dict(flat, sep="/")


def picked(key: str, composer: dict) -> np.ndarray:
    """What upstream calls `key`, from a tree like the composer's parameters, with upstream's axes."""
    mapped = flax_param(key)
    value = np.asarray(flatten_dict({"composer": composer}, sep="/")[mapped.name])
    return mapped.transform.to_torch(value if mapped.layer is None else value[mapped.layer])
