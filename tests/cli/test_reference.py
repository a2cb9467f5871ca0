from pathlib import Path

from cogsmith.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "5-commands.md"


def test_the_page_of_commands_is_in_step():
    assert PAGE.read_text() == reference(), "run: python -m cogsmith.cli.reference > docs/5-commands.md"
