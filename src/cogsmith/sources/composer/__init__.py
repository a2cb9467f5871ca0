"""Checkpoints of MosaicML's Composer: a training run's state, of which only the model and its tokenizer are taken.

importer             the Importer: a checkpoint into a Hugging Face folder, top to bottom
├── files            which files are a checkpoint, and which of several is meant
├── checkpoint       what lies where in one, in its four forms
├── base             what it lacks of its model, from a folder that is named before it
├── config           the config.json of a model that transformers has
├── mosaicgpt        Mosaic's own models, as GPT-2 or MPT of transformers
├── weights          the model's tensors by transformers' names
│   └── lora         adapters, added into the weights that they adapt
└── tokenizer_files  the saved files of a tokenizer, written so that they read as the run's own did
    └── tokenizer_truth    the same files as the tokenizers library reads them
"""

from __future__ import annotations

from cogsmith.sources.composer.importer import ComposerImporter

__all__ = ["ComposerImporter"]
