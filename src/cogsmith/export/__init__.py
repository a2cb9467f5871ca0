"""A model in other programs' formats.

onnx        the way from a checkpoint to verified files at their place, top to bottom
at_build    what config.toml says of it: made with the work directory, and remembered
subject     what is exported: a checkpoint whose weights and code are ordinary, and how long its texts are
room        memory and disk that it will take, asked for before anything starts
graph       a model in memory -> model.onnx and model.onnx.data
agreement   the files in onnxruntime against the model
"""
