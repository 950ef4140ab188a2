"""Tiny randomly initialised vision models, saved as the hub's are, so that the usual loaders read them offline."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 64, width: int = 64, grain: int = 8) -> np.ndarray:
    """A picture uint8[h, w, 3] of soft random blobs about `grain` pixels wide."""
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
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
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
    Sam2Model(config).save_pretrained(folder)
    return str(folder)
