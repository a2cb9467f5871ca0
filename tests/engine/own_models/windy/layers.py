import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def eager(module, query, key, value, attention_mask, scaling, **kwargs):
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


class Attention(nn.Module):
    is_causal = True

    def __init__(self, config, layer_idx):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden, attention_mask, past_key_values, **kwargs):
        shape = (*hidden.shape[:-1], -1, self.head_dim)
        query, key, value = (part.view(shape).transpose(1, 2) for part in self.qkv(hidden).chunk(3, -1))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager)
        mixed, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
        return self.out(mixed.reshape(hidden.shape))


class Block(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config, layer_idx)
        self.gust = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden, **kwargs):
        hidden = hidden + self.attention(self.norm(hidden), **kwargs)
        return hidden + torch.sin(self.gust(hidden))
