"""The shape of the repository: a test file for each module, small files and functions, no foreign names."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.support.repository import ROOT, files, name

FILE_LINES = 500
FUNCTION_LINES = 80

TESTED_BY = {
    "appraisal/model.py": "tests/unit/appraisal/test_appraise.py",
    "control/systemmode.py": "tests/attacks/test_system_users.py",
    "daemon/asked.py": "tests/unit/daemon/test_answers.py",
    "daemon/audit_answers.py": "tests/unit/daemon/test_answers.py",
    "daemon/control_connection.py": "tests/unit/daemon/test_control_server.py",
    "daemon/control_socket.py": "tests/unit/daemon/test_control_server.py",
    "daemon/demo/assistant.py": "tests/e2e/test_demo.py",
    "daemon/demo/newcomer.py": "tests/e2e/test_demo.py",
    "daemon/demo/story.py": "tests/e2e/test_demo.py",
    "daemon/polkit.py": "tests/contract/test_authorities.py",
    "daemon/server_answers.py": "tests/unit/daemon/test_answers.py",
    "decision/model.py": "tests/unit/decision/test_engine.py",
    "errors.py": "tests/architecture/test_reference.py",
    "evidence/acceptors.py": "tests/unit/kernel/test_acceptors.py",
    "evidence/model.py": "tests/unit/kernel/test_kernel.py",
    "evidence/protocol.py": "tests/unit/kernel/test_kernel.py",
    "evidence/sealing.py": "tests/contract/test_sealers.py",
    "evidence/recorder.py": "tests/contract/test_recorders.py",
    "daemon/server_notes.py": "tests/e2e/test_http_backs.py",
    "enforcement/bridge_effects.py": "tests/unit/enforcement/test_bridge.py",
    "grants/model.py": "tests/unit/grants/test_match.py",
    "launch/refusal.py": "tests/unit/launch/test_registry.py",
    "launch/starting.py": "tests/unit/launch/test_client.py",
    "launch/supervise.py": "tests/unit/launch/test_session_launcher.py",
    "launch/supervision.py": "tests/unit/launch/test_session_launcher.py",
    "kernel/linux/recorder/failures.py": "tests/unit/kernel/recorder/test_reader.py",
    **{
        f"evidence/interpreters/{module}.py": "tests/unit/evidence/test_interpreters.py"
        for module in ("bun_deno", "java", "names", "node", "python", "scripting", "shell", "spec")
    },
}
"""Modules without a test file of their own, and the file that tests them: types without behaviour, and tables that are
read through one door."""

LONGER = {
    "tests/unit/daemon/test_control_server.py": "one dialogue for each step of the control server",
    "tests/unit/enforcement/test_session.py": "one dialogue for each rule of the session, which is one state machine",
    "tests/unit/test_shim.py": "one dialogue for each promise of the shim, which is one file itself",
    "tests/support/appraisal_cases.py": "one literal table; its functions are parts of it",
}
"""Files over the limit, each with its reason."""

FOREIGN = (
    "/" + "work/",
    "/tmp/" + "plan",
    "pypi" + ".org",
    "python" + "hosted",
    "npm" + "js.org",
    "extra-" + "index-url",
)
"""Names of places outside of this repository that nothing in it may depend on."""


def modules() -> list[str]:
    """Every module of the package, below ``attestd/``."""
    return [name(path).removeprefix("attestd/") for path in files(".py", below="attestd") if path.name != "__init__.py"]


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_test_file(module: str):
    """tests/unit/<room>/test_<module>.py exists, or the table says which file tests the module."""
    *rooms, file = module.split("/")
    room = ROOT / "tests" / "unit" / (rooms[0] if rooms else "")
    own = list(room.rglob(f"test_{file}")) if rooms else [room / f"test_{file}"]
    elsewhere = TESTED_BY.get(module)
    assert any(path.is_file() for path in own) or (elsewhere is not None and (ROOT / elsewhere).is_file()), (
        f"attestd/{module} has no {name(room)}/test_{file}"
    )


def test_the_table_of_other_test_files_is_current():
    """Every row names a module and a test file that exist."""
    assert [module for module in TESTED_BY if module not in modules()] == []
    assert [path for path in TESTED_BY.values() if not (ROOT / path).is_file()] == []


def test_files_are_small():
    """No Python file has more than 500 lines, but those that say why."""
    long = {name(path) for path in files(".py") if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES}
    assert long - set(LONGER) == set()
    assert {path for path in LONGER if not (ROOT / path).is_file()} == set()


def test_functions_are_short():
    """No function has more than 80 lines, but those of the files that say why."""
    long = [
        f"{name(path)}: {node.name}"
        for path in files(".py")
        if name(path) not in LONGER
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES
    ]
    assert long == []


def test_every_test_says_what_is_true():
    """Each test function begins with one sentence, which ends with a full stop."""
    silent = [
        f"{name(path)}: {node.name}"
        for path in files(".py", below="tests")
        for node in functions(path)
        if node.name.startswith("test_") and not (ast.get_docstring(node) or "").strip().endswith(".")
    ]
    assert silent == []


def test_every_module_begins_with_its_rules():
    """Each module of the package and of the generator has a docstring at its head."""
    mute = [
        name(path)
        for path in (*files(".py", below="attestd"), *files(".py", below="docs"))
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert mute == []


def test_nothing_names_foreign_places():
    """No file names a directory or host of the machine that it was written on."""
    found = [
        f"{name(path)}:{number}: {word}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        for word in FOREIGN
        if word in line
    ]
    assert found == []


def test_nothing_is_left_to_do():
    """No file of ours has an open promise."""
    promise = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert [
        name(path) for path in files(".py", ".md", ".toml", ".cedar") if promise.search(path.read_text("utf-8"))
    ] == []


@functools.cache
def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
