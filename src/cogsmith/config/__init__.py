"""config.toml -> parsed -> validated -> completed.

load             the three steps, one after the other
document         1  the text as data, `[defaults]` merged under each model
└── positions       on which line each key stands
validate         2  every problem at once
├── raw, tables     which keys there are: the types that check them one by one
│   └── rules, uri  what a name, a pin, a revision, a source may look like
├── translate       pydantic's errors in this project's words
├── forbidden       what may stand in no key: access tokens, values that JSON cannot hold
├── consistency     what the keys of one model must say together
│   └── weights, arguments, engines   of these: where weights come from, from_pretrained's words, what runs the model
└── findings        how a problem is worded
model            3  the complete, immutable types that the rest of the program sees
schema           config.schema.json and the table of keys, generated from `raw`
"""

from cogsmith.config.load import load
from cogsmith.config.model import CogSettings, Model, Project

__all__ = ["CogSettings", "Model", "Project", "load"]
