"""The row back-ends: how the tokens of many rows become logits. `self_test` decides which is right for a model."""
