"""BAGEL's language model in torch, understanding expert and text alone, under the names of its modules."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(c.head_dim, c.eps), RMSNorm(c.head_dim, c.eps)

    def forward(self, x):
        c, n = self.c, x.shape[1]
        q, k, v = (f(x).unflatten(-1, (-1, c.head_dim)) for f in (self.q_proj, self.k_proj, self.v_proj))
        angle = torch.arange(n)[:, None] * c.rope_theta ** (-torch.arange(0, c.head_dim, 2) / c.head_dim)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]

        def rotate(x):
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        q, k = rotate(self.q_norm(q)), rotate(self.k_norm(k))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(c.width, c.mlp, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(c.mlp, c.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(c.width, c.eps), RMSNorm(c.width, c.eps)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Bagel(nn.Module):
    """Token ids [b, n] to next-token logits; `tensors` as in ema.safetensors."""

    def __init__(self, c, tensors):
        super().__init__()
        model = nn.Module()
        model.embed_tokens = nn.Embedding(c.vocab, c.width)
        model.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        model.norm = RMSNorm(c.width, c.eps)
        self.language_model = nn.Module()
        self.language_model.model, self.language_model.lm_head = model, nn.Linear(c.width, c.vocab, bias=False)
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.copy_(torch.from_numpy(tensors[name].astype(np.float32)))

    def forward(self, ids):
        x = self.language_model.model.embed_tokens(ids)
        for layer in self.language_model.model.layers:
            x = layer(x)
        return self.language_model.lm_head(self.language_model.model.norm(x))
