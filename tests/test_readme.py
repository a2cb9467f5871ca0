"""What the README shows must work."""

import re
from pathlib import Path

from cogsmith import config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_config_it_shows_loads(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "checkpoints/my-finetune").mkdir(parents=True)
    (tmp_path / "checkpoints/my-finetune/config.json").write_text("{}")
    (tmp_path / "config.toml").write_text(block)
    project = config.load(tmp_path / "config.toml")
    assert list(project.models) == ["smollm2-135m", "llama-3-1-8b--4bit", "my-finetune", "from-training"]
    assert project.dest_prefix == "r8.im/your-account/"


def test_every_page_and_script_it_names_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
    for script in ("build", "test", "config.toml.example"):
        assert script in README
        assert (ROOT / script).is_file()
