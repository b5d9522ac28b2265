"""Every test of attestd runs on both machines, or says why not (``tests/support/machine.py``)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import MACHINES, stands_on_one
from tests.support.repository import ROOT, files, name

ELSEWHERE = ("tests/architecture/", "tests/bench/", "tests/conformance/", "tests/system/")
"""What starts attestd of this machine outside of the tests, and what speaks of it."""
NOT_CHOSEN = {
    "tests/support/instance.py",
    "tests/support/mac_instance.py",
    "tests/support/system_instance.py",
    "tests/e2e/test_macos.py",
}
"""Who starts attestd of a machine that is named: the two that can be chosen from, system mode of Linux, what only a Mac does."""
OUR_PROGRAMS = re.compile(r"SCRIPTS / [\"']attest")


def marks(path: Path) -> Iterator[tuple[str, str]]:
    """Every mark of a machine in a file: its name, and its reason if it has one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reasons = {id(node.func): node.args for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in MACHINES and ast.unparse(node.value) == "pytest.mark":
            match reasons.get(id(node)):
                case [ast.Constant(value=str() as reason)]:
                    yield node.attr, reason.strip()
                case _:
                    yield node.attr, ""


def everything() -> Iterator[Path]:
    """The files that pytest collects and what they share."""
    yield from (path for path in files(".py", below="tests") if not name(path).startswith(ELSEWHERE))


@pytest.mark.parametrize(
    ("file", "needs"),
    [
        ("tests/e2e/test_calls.py", True),
        ("tests/e2e/test_http_backs.py", True),
        ("tests/attacks/test_i01_another_program.py", True),
        ("tests/unit/daemon/test_app.py", True),
        ("tests/unit/daemon/test_http_doors.py", True),
        ("tests/unit/wire/test_parse.py", False),
        ("tests/unit/kernel/test_kernel.py", False),
        ("tests/kernel/test_linux_identity.py", False),
    ],
)
def test_which_tests_need_a_machine(file: str, needs: bool):
    """Those that import, themselves or through helpers and conftest.py, who makes daemons or kernels; not those of a room."""
    assert stands_on_one(ROOT / file) is needs


def test_who_needs_one_machine_says_why():
    """Each mark has a reason, and stands in a file whose tests would run on the other machine without it."""
    assert [name(path) for path in everything() for _, reason in marks(path) if not reason] == []
    marked = [path for path in everything() if path.name.startswith("test_") and any(marks(path))]
    assert [name(path) for path in marked if not stands_on_one(path)] == []


def test_nobody_starts_attestd_beside_the_chosen_machine():
    """Instances come from ``on_the_machine`` or ``running``; where our programs are, the instance knows."""
    beside = []
    for path in everything():
        text = path.read_text(encoding="utf-8")
        made = any(isinstance(node, ast.Call | ast.ClassDef) and _makes(node) for node in ast.walk(ast.parse(text)))
        both = not any(name_ == MACHINES[0] for name_, _ in marks(path))
        if made or (both and OUR_PROGRAMS.search(text)):
            beside.append(name(path))
    assert set(beside) - NOT_CHOSEN == set()


def _makes(node: ast.Call | ast.ClassDef) -> bool:
    named = [node.func] if isinstance(node, ast.Call) else node.bases
    return any(isinstance(each, ast.Name) and each.id in {"Instance", "MacInstance"} for each in named)
