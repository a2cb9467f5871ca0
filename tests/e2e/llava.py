"""A tiny LLaVA for the tests of images, and what plain transformers says of its answers."""

import base64
import io

import torch
from PIL import Image

from cogsmith import config
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine.vision import SIDE, generated, llava, save

CONFIG = """
[models.llava]
source = "./checkpoint"
task = "image-text"
cog.gpu = false
"""
NEW = 12
END = 256
PROCESSOR, _ = llava()
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
DEVIATION = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]


def build_llava(root):
    """Build a work directory under `root`; return the model and the folder."""
    model = save(root / "checkpoint")
    (root / "config.toml").write_text(CONFIG)
    (made,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache")
    return model, made.folder


def png(image):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(image):
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def truth(model, text, *images, special=True, pixels=None, count=NEW):
    """Plain transformers' tokens and log-probabilities after a text with its images."""
    inputs = PROCESSOR(text=[text], images=list(images) or None, return_tensors="pt", add_special_tokens=special)
    if pixels is not None:
        inputs["pixel_values"] = pixels
    return generated(model, inputs, count)


def shown(tokens):
    """What a reader sees: nothing from the end token on."""
    ends = tokens.index(END) if END in tokens else len(tokens)
    return PROCESSOR.tokenizer.decode(tokens[:ends], skip_special_tokens=True)


def square(image, transform):
    """The pixels of a 60 x 40 image by the rule, `[1, 3, SIDE, SIDE]`."""
    if transform == "padded_resize":
        made = Image.new("RGB", (60, 60), (122, 116, 104))
        made.paste(image, (0, 10))
        made = made.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    else:
        made = image.resize((48, SIDE), Image.Resampling.BICUBIC).crop((8, 0, 40, SIDE))
    values = torch.frombuffer(bytearray(made.tobytes()), dtype=torch.uint8).reshape(SIDE, SIDE, 3).permute(2, 0, 1)
    return ((values / 255 - MEAN) / DEVIATION)[None]
