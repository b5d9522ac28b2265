"""docs/reference is what the code says, and every table that must know a cause does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from attestd.appraisal.caps import CAPS
from attestd.daemon import config
from attestd.errors import Cause, ExitCode
from attestd.wire.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, SERVER_NOTIFICATIONS, SERVER_REQUESTS
from docs import generate
from docs.generator import causes, configuration
from tests.support.repository import ROOT

STRUCTS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


@pytest.mark.parametrize("page", generate.PAGES)
def test_pages_are_current(page: str):
    """Whoever changes what a page is made of runs: make fix."""
    assert (generate.REFERENCE / page).read_text(encoding="utf-8") == generate.PAGES[page]()


def test_the_check_finds_what_is_not_current(tmp_path: Path):
    """A page that was edited by hand, and one that is missing, are named; writing mends both."""
    shutil.copytree(generate.REFERENCE, tmp_path, dirs_exist_ok=True)
    assert generate.stale(tmp_path) == ()
    (tmp_path / "levels.md").write_text("edited", encoding="utf-8")
    (tmp_path / "cli.md").unlink()
    assert generate.stale(tmp_path) == ("cli.md", "levels.md")
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == ()


def test_usage_is_checked(capsys: pytest.CaptureFixture[str]):
    """Other words than --check are a usage error, and nothing is written."""
    assert generate.main(["--chekc"]) == 2
    assert "usage" in capsys.readouterr().err
    assert generate.main(["--check"]) == 0


def test_every_cause_has_its_section():
    """Each cause stands in exactly one group, has a text, and a section; so do the two of the shim."""
    grouped = [cause for group in causes.GROUPS.values() for cause in group]
    assert sorted(grouped) == sorted(Cause)
    assert set(causes.WHAT) == set(Cause)
    headings = re.findall(r"^### (\w+)$", (generate.REFERENCE / "causes.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted([*(cause.value for cause in Cause), *causes.SHIM])


def test_the_shim_has_no_other_causes():
    """The causes that the shim's source names are the two of the page."""
    source = (ROOT / "attestd" / "shim.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(daemon_\w+)"', source)) == set(causes.SHIM)


def test_every_reason_method_and_exit_code_is_there():
    """Nothing of the tables is missing in the pages."""
    text = {page: (generate.REFERENCE / page).read_text(encoding="utf-8") for page in generate.PAGES}
    assert [code for code in CAPS if f"| `{code}` |" not in text["levels.md"]] == []
    tables = (CLIENT_REQUESTS, CLIENT_NOTIFICATIONS, SERVER_REQUESTS, SERVER_NOTIFICATIONS)
    assert [row.name for table in tables for row in table if f"| `{row.name}` |" not in text["methods.md"]] == []
    assert [
        code for code in ExitCode if f"| `{code.value}` | {code.name.lower().replace('_', ' ')} |" not in text["cli.md"]
    ] == []


def test_every_configuration_key_is_described():
    """Each key of each table has a sentence, but those that are tables themselves."""
    silent = [
        f"{kind.__name__}.{field.name}"
        for kind in STRUCTS
        for field in msgspec.structs.fields(kind)
        if kind.__module__ == config.__name__
        and not (isinstance(field.type, type) and issubclass(field.type, msgspec.Struct))
        and field.name not in configuration.field_docs(kind)
    ]
    assert silent == []
