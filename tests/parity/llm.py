"""The recorded tiny BAGEL's language model and diffusion head under our names, and its streams in our form."""

import numpy as np
from parity.bagel import FOLDER, convert, linear, load_tree, same, sizes, vae_config, vision_config
from safetensors.numpy import load_file

from macro.models.variants import LLMConfig, ModelConfig
from macro.sentence.sight import CAUSAL, FULL, NOISE

MODES = {"causal": CAUSAL, "full": FULL, "noise": NOISE}
_LAYER = r"language_model\.model\.layers\.(\d+)\."


def _expert_keys(suffix: str, expert: str) -> list:
    base = f"mot/blocks/#\\1/{expert}"
    return [
        (_LAYER + f"input_layernorm{suffix}\\.weight", f"{base}/input_norm/scale", same),
        (_LAYER + f"post_attention_layernorm{suffix}\\.weight", f"{base}/post_norm/scale", same),
        (_LAYER + f"self_attn\\.([qk])_norm{suffix}\\.weight", f"{base}/\\2_norm/scale", same),
        (_LAYER + f"self_attn\\.([qkvo])_proj{suffix}\\.weight", f"{base}/\\2/kernel", linear),
        (_LAYER + f"self_attn\\.([qkv])_proj{suffix}\\.bias", f"{base}/\\2/bias", same),
        (_LAYER + f"mlp{suffix}\\.(gate|up|down)_proj\\.weight", f"{base}/\\2/kernel", linear),
        (f"language_model\\.model\\.norm{suffix}\\.weight", f"mot/{expert}_norm/scale", same),
    ]


LLM_KEYS = [
    *_expert_keys("", "und"),
    *_expert_keys("_moe_gen", "gen"),
    (r"language_model\.model\.embed_tokens\.weight", "planner/embed", same),
    (r"language_model\.lm_head\.weight", "planner/head", same),
    (r"time_embedder\.mlp\.0\.weight", "diffusion_head/time/fc1/kernel", linear),
    (r"time_embedder\.mlp\.0\.bias", "diffusion_head/time/fc1/bias", same),
    (r"time_embedder\.mlp\.2\.weight", "diffusion_head/time/fc2/kernel", linear),
    (r"time_embedder\.mlp\.2\.bias", "diffusion_head/time/fc2/bias", same),
    (r"vae2llm\.weight", "diffusion_head/latent_in/kernel", linear),
    (r"vae2llm\.bias", "diffusion_head/latent_in/bias", same),
    (r"llm2vae\.weight", "diffusion_head/latent_out/kernel", linear),
    (r"llm2vae\.bias", "diffusion_head/latent_out/bias", same),
]


def model_config() -> ModelConfig:
    """The recorded sizes; without binding, which BAGEL does not have."""
    config = sizes()
    llm, bagel = config["llm"], config["bagel"]
    return ModelConfig(
        llm=LLMConfig(
            width=llm["hidden_size"],
            mlp=llm["intermediate_size"],
            layers=llm["num_hidden_layers"],
            heads=llm["num_attention_heads"],
            kv_heads=llm["num_key_value_heads"],
            head_dim=llm["hidden_size"] // llm["num_attention_heads"],
            vocab=llm["vocab_size"],
            rope_theta=llm["rope_theta"],
            eps=llm["rms_norm_eps"],
        ),
        vision=vision_config(),
        vae=vae_config(),
        latent_patch=bagel["latent_patch_size"],
        latent_side=bagel["max_latent_size"],
        binding=False,
        timestep_shift=bagel["timestep_shift"],
    )


def composer_params() -> dict:
    """All of the recorded weights but the VAE's, as the composer's parameters."""
    params = convert(load_file(FOLDER / "bagel_tiny.safetensors"), LLM_KEYS)
    params["planner"] |= load_tree()["composer"]["planner"]
    return params


def train_streams(inputs) -> dict:
    """The recorded packed batch as one row of our three streams."""
    length = int(inputs["sequence_length"])
    samples, splits = inputs["sample_lens"], inputs["split_lens"]
    modes = [MODES[name] for name in inputs["attn_modes"]]
    whole = {
        "sample": np.repeat(np.arange(len(samples)), samples),
        "order": np.arange(length),
        "span": np.repeat(np.arange(len(splits)), splits)[:length],
        "mode": np.repeat(modes, splits)[:length],
        "rope": inputs["packed_position_ids"],
    }

    def at(indexes, **fields):
        meta = {name: values[indexes] for name, values in whole.items()}
        return {name: np.asarray(values)[None].astype(np.int32) for name, values in {**meta, **fields}.items()}

    latent_index = inputs["packed_vae_token_indexes"]
    vision = at(
        inputs["packed_vit_token_indexes"],
        position=inputs["packed_vit_position_ids"],
        subject=np.zeros(len(inputs["packed_vit_token_indexes"])),
    )
    vision["patches"] = inputs["packed_vit_tokens"][None]
    latent = at(latent_index, position=inputs["packed_latent_position_ids"])
    latent["t_raw"] = inputs["packed_timesteps"][None].astype(np.float32)
    latent["loss"] = np.isin(latent_index, inputs["mse_loss_indexes"])[None]
    labels = np.full(length, -1)
    labels[inputs["ce_loss_indexes"]] = inputs["packed_label_ids"]
    text_index = inputs["packed_text_indexes"]
    text = at(text_index, ids=inputs["packed_text_ids"], labels=labels[text_index])
    text["weights"] = np.ones(text["ids"].shape, np.float32)
    return {"text": text, "vision": vision, "latent": latent}
