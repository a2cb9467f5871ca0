"""Tiny random encoders, and decoders without a head, by architecture; and plain transformers' answers for them."""

import torch
import transformers

from cogsmith.engine.encoder_engine import EncoderEngine
from cogsmith.engine.encoder_model import load_encoder
from cogsmith.manifest import Limits

from .models import SHAPE, Stream

VOCAB = SHAPE["vocab_size"]
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
}
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}

ENCODERS = {
    "bert": lambda: transformers.BertConfig(**BERT),
    "roberta": lambda: transformers.RobertaConfig(**BERT),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**BERT),
    "camembert": lambda: transformers.CamembertConfig(**BERT),
    "albert": lambda: transformers.AlbertConfig(**BERT, embedding_size=16),
    "electra": lambda: transformers.ElectraConfig(**BERT, embedding_size=16),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCAB, dim=32, hidden_dim=64, n_layers=3, n_heads=4, max_position_embeddings=66
    ),
    "mpnet": lambda: transformers.MPNetConfig(**BERT),
    "modernbert": lambda: transformers.ModernBertConfig(**BERT, **MODERN, local_attention=8),
    "deberta-v2": lambda: transformers.DebertaV2Config(**BERT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "convbert": lambda: transformers.ConvBertConfig(**BERT, embedding_size=32),
    "nomic": lambda: transformers.NomicBertConfig(**BERT),
    "xlnet": lambda: transformers.XLNetConfig(vocab_size=VOCAB, d_model=32, n_layer=3, n_head=4, d_inner=64),
    "t5": lambda: transformers.T5Config(
        vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, decoder_start_token_id=0
    ),
    "fnet": lambda: transformers.FNetConfig(**{k: v for k, v in BERT.items() if k != "num_attention_heads"}),
}
DECODERS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**{k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=66),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=8),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=66,
    ),
    "mamba": lambda: transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=8, num_hidden_layers=3),
}


def save(config, folder):
    """Save a random model of `config`; return it, or of T5 and its like the half that reads."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval().float()
    with torch.no_grad():
        # Large enough that layers differ by more than rounding.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return model.get_encoder() if config.is_encoder_decoder else model


def engine_over(folder, *, task="encoder", max_tokens_per_batch=None, **limits):
    loaded = load_encoder(folder, {"dtype": "float32"}, name="tiny", task=task)
    return EncoderEngine(loaded, Limits(**limits), max_tokens_per_batch=max_tokens_per_batch)


class Answer(Stream):
    """A sink for the one event of a request for vectors."""

    def __call__(self, events):
        super().__call__((*events,))

    def result(self):
        self.wait_for(1)
        (event,) = self.events
        return event


def ask(engine, *requests):
    """Submit all requests at once; return each one's only event."""
    answers = [Answer() for _ in requests]
    for request, answer in zip(requests, answers, strict=True):
        engine.submit(request, answer, client=answer)
    return [answer.result() for answer in answers]


@torch.no_grad()
def plain_states(model, ids, mask=None):
    """Return the last hidden state and all hidden states of a plain pass, without the rows' axis."""
    inputs = {"input_ids": torch.tensor([list(ids)])}
    if mask is not None:
        inputs["attention_mask"] = torch.tensor([mask])
    answer = model(**inputs, output_hidden_states=True)
    return answer.last_hidden_state[0], [states[0] for states in answer.hidden_states]
