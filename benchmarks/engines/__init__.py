"""Engines side by side: the same streams through each, in processes of their own. Run by `benchmarks/run`.

What a worker imports is standard library only: it also runs in the environments of other engines.
"""
