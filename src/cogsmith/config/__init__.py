"""config.toml -> parsed -> validated -> completed."""

from cogsmith.config.load import load
from cogsmith.config.model import CogSettings, Model, Project

__all__ = ["CogSettings", "Model", "Project", "load"]
