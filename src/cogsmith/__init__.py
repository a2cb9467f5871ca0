"""Cogsmith: open language models in Cog containers, held by their tokens."""

__version__ = "0.1.0"
