"""A work directory's files, except the weights, as bytes. The same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

import cogsmith
from cogsmith.config.model import Model, Project
from cogsmith.config.rules import PLACEHOLDER
from cogsmith.errors import InternalError
from cogsmith.manifest import FILE_NAME, IMAGE_TEXT, MODEL_CODE, VECTORS, Manifest
from cogsmith.prompts import templates
from cogsmith.sources.custom_code import CustomCode
from cogsmith.workdir import pins, schema, signature

PLACEHOLDER_PREFIX = f"r8.im/{PLACEHOLDER}/"
_PACKAGE = Path(cogsmith.__file__).parent
_TRAVELLING_MODULES = (
    "__init__.py",
    "data_uris.py",
    "detokenize.py",
    "errors.py",
    "heads.py",
    "manifest.py",
    "quant.py",
)
_TRAVELLING_PACKAGES = ("engine", "lmtp", "predictor", "prompts")
_TRAVELLING_SUFFIXES = (".py", ".jinja")


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A file to write: its bytes, and whether it may be executed."""

    content: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        """Permission bits, whatever the umask."""
        return 0o755 if self.executable else 0o644


def render(
    model: Model,
    resolved_uri: str,
    project: Project,
    shape: Mapping[str, Any] | None = None,
    code: CustomCode | None = None,
) -> dict[str, RenderedFile]:
    """Return every file of the work directory by its relative POSIX path, without the weights.

    `resolved_uri` names the weights with their full revision; `shape` is their config.json, where it is known; `code`
    is the model's own.
    """
    rendering = _Templates(templates_folder(), _context(model, project, shape, code))
    predictor = rendering.render("predict_encoder.py" if model.task in VECTORS else "predict.py")
    run = signature.read(predictor.content.decode())
    files = {
        "cog.yaml": rendering.render("cog.yaml"),
        "predict.py": predictor,
        "requirements.txt": rendering.render("requirements.txt"),
        "push": rendering.render("push", executable=True),
        ".dockerignore": rendering.render("dockerignore"),
        "README.md": rendering.render("README.md"),
        FILE_NAME: RenderedFile(_manifest(model, resolved_uri, code).to_json()),
        schema.FILE_NAME: RenderedFile(schema.to_json(schema.document(run, pins.sdk_version()))),
    }
    return dict(sorted((files | dict(travelling_code()) | model_code(code)).items()))


def model_code(code: CustomCode | None) -> dict[str, RenderedFile]:
    """Return the model's own Python files by their places in the work directory."""
    return {f"{MODEL_CODE}/{file.path}": RenderedFile(file.content) for file in (code.files if code else ())}


def digest(files: Mapping[str, RenderedFile]) -> str:
    """Return one hash over all `files`, names and modes included."""
    total = hashlib.sha256()
    for path, file in sorted(files.items()):
        content = hashlib.sha256(file.content).hexdigest()
        total.update(f"{file.mode:o} {content} {path}\n".encode())
    return f"sha256:{total.hexdigest()}"


def templates_folder() -> Path:
    """Return where the templates are: in the installed package, or beside the sources."""
    for folder in (_PACKAGE / "_templates", _PACKAGE.parents[1] / "templates"):
        if (folder / "cog.yaml").is_file():
            return folder
    raise InternalError(f"no templates in {_PACKAGE / '_templates'}: the installation is incomplete")


def _context(
    model: Model, project: Project, shape: Mapping[str, Any] | None, code: CustomCode | None
) -> dict[str, Any]:
    prefix = project.dest_prefix or PLACEHOLDER_PREFIX
    return {
        "name": model.name,
        "image": prefix + model.name,
        "placeholder": PLACEHOLDER,
        "cog": model.cog,
        "concurrency": int(model.cog.concurrency),
        "sdk_version": pins.sdk_version(),
        "requirements": pins.requirements(model, shape),
        "has_code": code is not None,
        "reads_images": model.task == IMAGE_TEXT,
        "prompt_templates": templates.names(),
        "gives_vectors": model.task in VECTORS,
    }


def _manifest(model: Model, resolved_uri: str, code: CustomCode | None) -> Manifest:
    return Manifest(
        name=model.name,
        source=resolved_uri,
        cogsmith=cogsmith.__version__,
        allow_pickle=model.allow_pickle,
        task=model.task,
        image_transform=model.image_transform,
        engine=model.engine,
        model_args=dict(model.model_args),
        vllm=dict(model.vllm),
        quant=model.quant,
        code=code.classes if code else None,
        limits=model.limits,
        prompt=model.prompt,
        prepack=model.prepack,
        concurrency=model.cog.concurrency,
    )


def travelling_code() -> Iterator[tuple[str, RenderedFile]]:
    """Yield the part of this package that runs in the container."""
    modules = [_PACKAGE / name for name in _TRAVELLING_MODULES]
    for package in _TRAVELLING_PACKAGES:
        modules += (path for path in (_PACKAGE / package).rglob("*") if path.suffix in _TRAVELLING_SUFFIXES)
    for module in modules:
        path = Path("cogsmith") / module.relative_to(_PACKAGE)
        yield path.as_posix(), RenderedFile(module.read_bytes())


class _Templates:
    """The templates with the values that go into them. A name without a value is an error, never an empty text."""

    def __init__(self, folder: Path, context: Mapping[str, Any]) -> None:
        self._environment = SandboxedEnvironment(
            loader=FileSystemLoader(folder),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"yaml_string": _yaml_string, "shell_word": shlex.quote}
        self._context = context

    def render(self, name: str, *, executable: bool = False) -> RenderedFile:
        """Fill the template `name`."""
        text = self._environment.get_template(name).render(self._context)
        return RenderedFile(text.encode(), executable)


def _yaml_string(value: str) -> str:
    text: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=2**31)
    return text.strip()
