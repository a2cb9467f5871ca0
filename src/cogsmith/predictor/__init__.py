"""Cog's face of an engine: a prediction's inputs in, chunks of output out."""
