"""docs/reference/cli.md is what the commands say."""

from __future__ import annotations

from pathlib import Path

from attestd.cli.reference import main, render
from tests.support.control_instance import ROOT


def test_the_page_is_current() -> None:
    """Whoever changes a command runs: python -m attestd.cli.reference docs/reference/cli.md."""
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == render()


def test_every_command_and_exit_code_is_there() -> None:
    """Commands of groups, too."""
    page = render()
    for expected in ("## attestctl approve", "## attestctl audit verify", "| 7 | integrity broken |"):
        assert expected in page


def test_the_page_is_written(tmp_path: Path) -> None:
    """The script writes what is compared."""
    main(tmp_path / "cli.md")
    assert (tmp_path / "cli.md").read_text(encoding="utf-8") == render()
