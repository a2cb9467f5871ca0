"""Commands, each in a process of its own, as a user runs them in a folder."""

import subprocess
import sys


def cogsmith(root, *arguments, **settings):
    command = [sys.executable, "-m", "cogsmith.cli.main", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False, **settings)
