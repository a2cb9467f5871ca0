"""Random steps for a row back-end: rows come late, pause, get several tokens at once, and go at their end."""

import random

import torch

from cogsmith.engine.rows.runner import RowChunk

MAX_ROWS = 3


@torch.inference_mode()
def deviation(runner, texts, expected, *, seed=5):
    """Run all `texts` through `runner`; return how far any log-probability is from `expected`, infinity for NaN."""
    draw = random.Random(seed)
    done = dict.fromkeys(range(len(texts)), 0)
    logprobs = [[] for _ in texts]
    while done:
        chunks = [_chunk(draw, row, start, texts[row]) for row, start in list(done.items())[:MAX_ROWS]]
        # One row pauses now and then: it is there, and gets nothing in this step.
        chunks = chunks[draw.random() < 0.15 and len(chunks) > 1 :]
        logits = torch.split(runner.forward(chunks), [chunk.num_wanted for chunk in chunks])
        for chunk, part in zip(chunks, logits, strict=True):
            logprobs[chunk.row].append(torch.log_softmax(part.float(), dim=-1))
            done[chunk.row] += len(chunk.tokens)
            if done[chunk.row] == len(texts[chunk.row]):
                runner.close_row(chunk.row)
                del done[chunk.row]
    worst = max((torch.cat(actual) - truth).abs().max() for actual, truth in zip(logprobs, expected, strict=True))
    return worst.nan_to_num(torch.inf).item()


def _chunk(draw, row, start, text):
    left = len(text) - start
    if start == 0:
        size = draw.randint(1, max(1, left // 2))
    else:
        size = draw.randint(1, min(left, 6)) if draw.random() < 0.15 else 1
    return RowChunk(row, start, text[start : start + size], size)
