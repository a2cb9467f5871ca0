import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class FlatConfig(PretrainedConfig):
    model_type = "flat"

    def __init__(self, vocab_size=256, d_model=32, n_layers=2, n_heads=4, max_seq_len=256, **kwargs):
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.max_seq_len = max_seq_len
        super().__init__(**kwargs)


class FlatBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.n_heads
        self.mix = nn.Linear(config.d_model, 3 * config.d_model)
        self.mlp = nn.Sequential(nn.Linear(config.d_model, config.d_model), nn.Tanh())

    def forward(self, hidden):
        rows, length, width = hidden.shape
        query, key, value = (
            part.view(rows, length, self.heads, -1).transpose(1, 2) for part in self.mix(hidden).chunk(3, -1)
        )
        scores = query @ key.transpose(2, 3) / key.shape[-1] ** 0.5
        later = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ value
        hidden = hidden + mixed.transpose(1, 2).reshape(rows, length, width)
        return hidden + self.mlp(hidden)


class FlatLM(PreTrainedModel):
    """Plain torch: attention of its own, no cache, no mask, sizes by other names, and no argument but the ids."""

    config_class = FlatConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(FlatBlock(config) for _ in range(config.n_layers))
        self.head = nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        hidden = hidden + torch.sin(torch.arange(hidden.shape[1], device=hidden.device))[None, :, None]
        for block in self.blocks:
            hidden = block(hidden)
        return CausalLMOutput(logits=self.head(hidden))
