"""Writes curated.npz: a tiny BERT's hidden states as curated-transformers 2.0.1 computes them.

Run it in an environment with that package, transformers and torch: python make_curated.py. The weights, named as in
Hugging Face's BERT, lie in the file beside the outputs, so that tests need neither package of that name.
"""

import json
import tempfile
from pathlib import Path

import numpy
import torch
from curated_transformers.layers import AttentionMask
from curated_transformers.models import BERTEncoder
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
TEXTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15]]
PADDING_ID = 3


def main():
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SHAPE), add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(f"{folder}/model.safetensors")
    curated = BERTEncoder.from_hf_config(hf_config=dict(model.config.to_dict(), model_type="bert"))
    curated.load_state_dict(BERTEncoder.state_dict_from_hf({f"bert.{name}": value for name, value in weights.items()}))
    curated.eval()
    arrays = {f"weights/{name}": value.numpy() for name, value in weights.items()}
    longest = max(map(len, TEXTS))
    for side in ("left", "right"):
        pads = [[PADDING_ID] * (longest - len(text)) for text in TEXTS]
        rows = [pad + text if side == "left" else text + pad for pad, text in zip(pads, TEXTS, strict=True)]
        ids = torch.tensor(rows)
        with torch.no_grad():
            output = curated(ids, AttentionMask(ids != PADDING_ID))
        arrays[f"{side}/ids"] = ids.numpy()
        for place, states in enumerate(output.all_outputs):
            arrays[f"{side}/{place}"] = states.numpy()
    arrays["about"] = numpy.array(json.dumps({"shape": SHAPE, "texts": TEXTS, "padding_id": PADDING_ID}))
    numpy.savez_compressed(Path(__file__).with_name("curated.npz"), **arrays)


if __name__ == "__main__":
    main()
