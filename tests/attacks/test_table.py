"""The list of attacks and the tests stand side by side: no row without a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ROWS = {
    **{f"I{number}": f"test_i{number:02}_" for number in range(1, 24)},
    **{f"L{number}": f"test_l{number:02}_" for number in range(1, 9)},
}
"""Rows about who calls, and about the launcher of system mode, and the files that show them. I21 (TCP) is shown below a front: this version has none."""
RECORDED = {"I7", "I8", "I10", "I15", "I17", "I18", "I19"}
"""Rows that are shown with the kernel recorder and without it, side by side."""


def marked(path: Path) -> set[str]:
    """Rows that the ``attack`` marks of a file name, on the module, its tests or their parameters."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return {
        str(call.args[0].value)
        for call in calls
        if call.func.attr == "attack" and call.args and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_file(row: str):
    """Files are named after the row, carry its mark and nobody else's, and have tests."""
    files = list(HERE.glob(f"{ROWS[row]}*.py"))
    assert files
    for file in files:
        assert marked(file) == {row}
        functions = (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))
        assert any(function.name.startswith("test_") for function in functions)


def test_every_file_names_its_row():
    """No file of this directory is without an ``attack`` mark."""
    files = [path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name]
    assert files
    assert [path.name for path in files if not marked(path)] == []


def test_rows_of_the_recorder_are_shown_with_it_and_without():
    """One file has them all, on every state of the recorder."""
    assert marked(HERE / "test_recorder_pairs.py") == RECORDED
