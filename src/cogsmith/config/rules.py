"""Rules for single values: each function takes a text and returns it in its normal form, or raises Refusal."""

from __future__ import annotations

import re
from keyword import iskeyword

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but not re-exported
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cogsmith.config.findings import Refusal, show

MODEL_NAME = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
MODEL_NAME_LENGTH = 100
PLACEHOLDER = "YOURACCOUNT"
INSTALLED_BY_COG = ("cog", "coglet")

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_IMAGE_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_IMAGE_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE_PREFIX = re.compile(rf"{_IMAGE_HOST}(/{_IMAGE_PART})*/?")
# https://www.debian.org/doc/debian-policy/ch-controlfields.html#source
_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+(=[A-Za-z0-9.+:~-]+)?")
_HUB_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/(?P<repo>[^/?#]+/[^/?#]+)")


def model_name(text: str) -> str:
    """Check the NAME of `[models.NAME]`: it becomes a folder and the last part of an image's name."""
    if re.fullmatch(MODEL_NAME, text) and len(text) <= MODEL_NAME_LENGTH:
        return text
    proposal = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:MODEL_NAME_LENGTH].rstrip("._-")
    raise Refusal(
        f"{show(text)} is not a model name",
        f"use at most {MODEL_NAME_LENGTH} small letters and digits, with . _ or - between them"
        + (f", such as {show(proposal)}" if proposal else ""),
    )


def image_prefix(text: str) -> str:
    """Check `dest_prefix`, the part of an image's name before the model's."""
    if _IMAGE_PREFIX.fullmatch(text.replace(PLACEHOLDER, PLACEHOLDER.lower())):
        return text
    raise Refusal(
        f"{show(text)} cannot begin the name of an image",
        'write the registry and your account, such as "r8.im/acme/": no "https://", no spaces, small letters',
    )


def repo_id(text: str) -> str:
    """Check the id of a repository on the Hugging Face Hub."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        raise Refusal(
            f"{show(text)} is not the id of a repository on the Hugging Face Hub",
            f"write {repo_in_url(text) or 'ORG/REPO'}: letters, digits, '-', '_' and '.', at most 96 of them",
        ) from None
    return text


def repo_in_url(text: str) -> str | None:
    """Return the repository that a web address of the Hub names; None where `text` is no such address."""
    match = _HUB_URL.match(text)
    return match["repo"] if match else None


def revision(text: str) -> str:
    """Check the name of a branch, a tag or a commit."""
    blank = any(char.isspace() or not char.isprintable() for char in text)
    if text and not blank and ".." not in text and not text.startswith(("-", "/")):
        return text
    raise Refusal(
        f"{show(text)} is not a revision",
        "name a branch, a tag or a commit, such as 'main' or '0e9e39f', or leave it out",
    )


def cuda_version(text: str) -> str:
    """Check `cog.cuda`: MAJOR.MINOR."""
    if re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}", text):
        return text
    raise Refusal(f"{show(text)} is not a CUDA version", 'write MAJOR.MINOR, such as "13.0"')


def system_package(text: str) -> str:
    """Check the name of a Debian package, with its version where that matters."""
    if _DEBIAN_PACKAGE.fullmatch(text):
        return text
    raise Refusal(f"{show(text)} is not a Debian package", "name one package an item, such as 'libgomp1'")


def pinned_requirement(text: str) -> str:
    """Check one line of `requirements`: exactly one version of one package."""
    pin = parse_pin(text, example="einops==0.8.1")
    if canonicalize_name(pin.name) in INSTALLED_BY_COG:
        raise Refusal(f"{show(text)}: Cog installs {pin.name} itself and removes this line", "leave it out")
    return str(pin)


def not_blank(text: str) -> str:
    """Check a text that names something: it is not empty, and can be shown."""
    if text.strip() and text.isprintable():
        return text
    raise Refusal(f"{show(text)} names nothing", "write a name, or leave the key out")


def model_type(text: str) -> str:
    """Check the `model_type` of a class of one's own."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        return text
    raise Refusal(f"{show(text)} is not a model_type", "write the word that config.json has, such as 'mosaic_gpt'")


def class_name(text: str) -> str:
    """Check the name of a class: CLASS, or MODULE.CLASS with packages before it."""
    if all(part.isidentifier() and not iskeyword(part) for part in text.split(".")):
        return text
    raise Refusal(f"{show(text)} does not name a class", "write MODULE.CLASS, such as 'modeling_mine.MyModel'")


def parse_pin(text: str, *, example: str) -> Requirement:
    """Read `NAME==VERSION`; Refusal, which shows `example`, for ranges, wildcards, markers and addresses."""
    refusal = Refusal(f"{show(text)} does not name one exact version", f"write NAME==VERSION, such as {example}")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise refusal from None
    if exact_version(requirement) is None or requirement.url or requirement.marker:
        raise refusal
    return requirement


def exact_version(requirement: Requirement) -> str | None:
    """Return the one version that is asked for; None for a range, a wildcard or nothing."""
    pins = list(requirement.specifier)
    exact = len(pins) == 1 and pins[0].operator == "==" and not pins[0].version.endswith(".*")
    return pins[0].version if exact else None
