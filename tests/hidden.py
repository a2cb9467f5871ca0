"""Packages that are installed here and that a test's processes are not to find, as where they are not installed."""

import os

_HIDE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
NAMES = {names!r}
PathFinder.find_spec = lambda name, *where: None if name.partition(".")[0] in NAMES else find(name, *where)
"""


def hide(names, folder):
    """Write into `folder` what hides the top modules `names`; return the PYTHONPATH with which it does.

    Python runs it before anything else, in every process. Packages are not only imported but looked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HIDE.format(names=set(names)))
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
