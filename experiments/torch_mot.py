"""The same Mixture-of-Transformers in PyTorch, for `bench_train.py` to race against.

Two experts made of transformers' Qwen2 pieces (projections, MLP, norms, rotary), attention by PyTorch's
scaled_dot_product_attention with a mask. It computes what `macro/nn/mot.py` does and takes its weights.
Install: pip install torch transformers (the CPU build is enough).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2MLP,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
    apply_rotary_pos_emb,
)

from macro.models.variants import LLMConfig
from macro.training.optim import OptimConfig

# Ours -> theirs, within one expert of one layer.
NAMES = {
    "input_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "q_norm": "q_norm",
    "k_norm": "k_norm",
    "o": "self_attn.o_proj",
    "post_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class Expert(nn.Module):
    """What surrounds the joint attention, for one expert of one layer."""

    def __init__(self, config: Qwen2Config):
        super().__init__()
        self.head_dim = config.head_dim
        self.input_layernorm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Qwen2Attention(config, layer_idx=0)
        self.q_norm = Qwen2RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = Qwen2RMSNorm(config.head_dim, config.rms_norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Qwen2MLP(config)

    def project(self, x, rotation):
        """Queries, keys and values [b, heads, n, head_dim]."""
        x = self.input_layernorm(x)
        attn = self.self_attn
        q, k, v = (f(x).unflatten(-1, (-1, self.head_dim)) for f in (attn.q_proj, attn.k_proj, attn.v_proj))
        q, k = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2)
        return *apply_rotary_pos_emb(q, k, *rotation), v.transpose(1, 2)

    def finish(self, x, attended):
        x = x + self.self_attn.o_proj(attended)
        return x + self.mlp(self.post_attention_layernorm(x))


class Mot(nn.Module):
    """The layers of both experts and the final norms."""

    def __init__(self, llm: LLMConfig):
        super().__init__()
        config = Qwen2Config(
            hidden_size=llm.width,
            intermediate_size=llm.mlp,
            num_hidden_layers=llm.layers,
            num_attention_heads=llm.heads,
            num_key_value_heads=llm.kv_heads,
            head_dim=llm.head_dim,
            rms_norm_eps=llm.eps,
            rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta},
        )
        pairs = [nn.ModuleDict({name: Expert(config) for name in ("und", "gen")}) for _ in range(llm.layers)]
        self.layers = nn.ModuleList(pairs)
        self.und_norm = Qwen2RMSNorm(llm.width, llm.eps)
        self.gen_norm = Qwen2RMSNorm(llm.width, llm.eps)
        self.rotary = Qwen2RotaryEmbedding(config)

    def forward(self, und, gen, ropes, mask):
        """und, gen [b, n, d]; ropes: positions [b, n] of each; mask [b, 1, n, n] bool, or float to be added."""
        rotations = [self.rotary(und, ids) for ids in ropes]
        sizes = [und.shape[1], gen.shape[1]]
        for layer in self.layers:
            experts = layer["und"], layer["gen"]
            parts = [expert.project(x, r) for expert, x, r in zip(experts, (und, gen), rotations, strict=True)]
            q, k, v = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
            attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
            shares = attended.transpose(1, 2).flatten(2).split(sizes, dim=1)
            und, gen = (expert.finish(x, s) for expert, x, s in zip(experts, (und, gen), shares, strict=True))
        return self.und_norm(und), self.gen_norm(gen)


def load(model: Mot, params: Mapping) -> None:
    """Copies the weights of `macro.nn.mot.MoT`: every one of them and nothing else, or an error."""
    theirs = {}

    def put(name: str, part: Mapping, layer=...) -> None:
        for kind, value in part.items():
            value = np.asarray(value)[layer]
            theirs[f"{name}.{'bias' if kind == 'bias' else 'weight'}"] = torch.tensor(value.T)

    for expert in ("und", "gen"):
        put(f"{expert}_norm", params[f"{expert}_norm"])
        for number in range(len(model.layers)):
            for ours, name in NAMES.items():
                put(f"layers.{number}.{expert}.{name}", params["blocks"][expert][ours], number)
    model.load_state_dict(theirs, strict=True)


def contestant(llm: LLMConfig, optim: OptimConfig, params: Mapping, case: Mapping, compiled: bool) -> Callable:
    """A training step of PyTorch's: forward, backward, clip, fused AdamW.

    Args:
        params: weights of `macro.nn.mot.MoT`, copied.
        case: `und`, `gen`, `rope_und`, `rope_gen`, `mask` [b, n, n], `target_und`, `target_gen`, `weight_und`,
            `weight_gen`, as `bench_train.case` makes them.

    Returns:
        step() -> loss before the update, as a float. The gradients to the tokens are computed as well.
    """
    model = Mot(llm)
    load(model, params)
    x = {name: torch.tensor(np.array(value)) for name, value in case.items()}
    tokens = [x[name].requires_grad_() for name in ("und", "gen")]
    ropes = [x[f"rope_{name}"].long() for name in ("und", "gen")]
    hidden = torch.zeros(x["mask"].shape).masked_fill(~x["mask"], -torch.inf)[:, None]

    def loss_of(und, gen):
        outs = model(und, gen, ropes, hidden)
        squares = [
            ((out - x[f"target_{name}"]).square() * x[f"weight_{name}"]).sum()
            for name, out in zip(("und", "gen"), outs, strict=True)
        ]
        return sum(squares)

    loss_fn = torch.compile(loss_of) if compiled else loss_of
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, optim.lr, (optim.b1, optim.b2), optim.eps, fused=True)

    def step() -> float:
        for leaf in (*model.parameters(), *tokens):
            leaf.grad = None
        loss = loss_fn(*tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip_norm, foreach=True)
        adamw.step()
        return loss.item()

    return step
