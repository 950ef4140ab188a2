"""Tiny randomly initialised vision models, saved as the hub's are, so that the usual loaders read them offline."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower on several, much slower where other processes want the cores too."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(seed: int, height: int = 64, width: int = 64, grain: int = 8) -> np.ndarray:
    """An image uint8[h, w, 3] of soft random blobs about `grain` pixels wide."""
    coarse = np.random.default_rng([seed]).integers(0, 256, (-(-height // grain), -(-width // grain), 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _bytes() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def clip_tokenizer():
    """Letters as tokens."""
    from transformers import CLIPTokenizer

    tokens = [*_bytes(), *[letter + "</w>" for letter in _bytes()], "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _clip_text() -> dict:
    return {
        "vocab_size": 514, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 77, "projection_dim": 16,
        "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513,
    }


def clip(folder: Path) -> str:
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    seen = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8, "projection_dim": 16,
    }
    config = CLIPConfig(text_config=_clip_text(), vision_config=seen, projection_dim=16)
    model = CLIPModel(config)
    model.save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(), clip_tokenizer()).save_pretrained(folder)
    return str(folder)


def dinov2(folder: Path) -> str:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=28
    )
    Dinov2Model(config).save_pretrained(folder)
    return str(folder)


def dino(folder: Path) -> str:
    """A ViT, which the first DINO is."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=224, patch_size=56
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


WORDS = ("a", "red", "blue", "dog", "house", "tree", "##s")


def grounding_dino(folder: Path) -> str:
    import torch
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoProcessor,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    torch.manual_seed(0)
    # The model looks for BERT's own numbers of [CLS], [SEP], "." and "?".
    tokens = [f"[unused{i}]" for i in range(1030)]
    for i, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}.items():
        tokens[i] = token
    tokens += WORDS
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = {
        "model_type": "bert", "vocab_size": len(tokens), "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256,
    }
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=64, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2,
        num_queries=20, use_pretrained_backbone=False, max_text_len=32,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return str(folder)


def sam2(folder: Path) -> str:
    import torch
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    side = 128
    vision = {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [side, side],
            "blocks_per_stage": [1, 2, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4],
            "global_attention_blocks": [2], "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
        "fpn_hidden_size": 32,
    }
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": side, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )
    _lively(Sam2Model(config)).save_pretrained(folder)
    return str(folder)


def _t5_tokenizer():
    """Letters as tokens."""
    from transformers import T5TokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz.,"]
    return T5TokenizerFast(vocab=[*[(t, 0.0) for t in special], *[(t, -3.0) for t in letters]], extra_ids=0)


def _lively(model):
    """Larger weights than a model starts with, which hardly looks at what it is given."""
    import torch

    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=1.5 / weights[0].numel() ** 0.5)
    return model


def _flux_parts() -> dict:
    """The parts that FLUX.1 and Kontext share; latents of 4 channels, a latent pixel is 2 x 2 pixels."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, layers_per_block=1,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=2.0,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**_clip_text())),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": T5EncoderModel(
            T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0)
        ),
        "tokenizer_2": _t5_tokenizer(),
        "transformer": _lively(FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6), guidance_embeds=True,
        )),
    }


def flux(folder: Path) -> str:
    from diffusers import FluxPipeline

    FluxPipeline(**_flux_parts()).save_pretrained(folder)
    return str(folder)


def kontext(folder: Path) -> str:
    from diffusers import FluxKontextPipeline

    FluxKontextPipeline(**_flux_parts()).save_pretrained(folder)
    return str(folder)


def flux2(folder: Path) -> str:
    """FLUX.2 klein, whose text encoder is a Qwen3: its layers 9, 18 and 27 are what the transformer reads."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokens = [*_bytes(), "<|endoftext|>"]
    tokenizer = Qwen2TokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    text = Qwen3Config(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1,
        ),
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=tokenizer,
        transformer=_lively(Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16,
        )),
    ).save_pretrained(folder)
    return str(folder)
