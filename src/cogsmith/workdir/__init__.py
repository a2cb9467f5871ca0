"""Work directories: planned, rendered, checked and put in place, one per model.

build            the path of one build
├── plan            what it would do: memory (on the GPU), lock (what the last build was made from)
├── render          every file but the weights: pins (versions), schema (Cog's view of predict.py)
├── link            the weights, without moving their bytes
├── lint/           every rule of Cog's and ours, on the finished folder
└── swap            the new folder in the old one's place, in one step; exclusive keeps other builds out
output           the checkpoint put somewhere else too; placed remembers what builds left there
signature        predict.py read without importing it, as Cog does
└── input_call, literals, cog_types
places           names that several of these agree on
"""
