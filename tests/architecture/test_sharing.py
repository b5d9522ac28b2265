"""How ``python -m tests`` shares files among processes, seen on a small suite of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from tests.sharing import FIRST, ONE_BY_ONE
from tests.support.repository import ROOT, files, name

SUITE = {
    "conftest.py": """
        import os, pathlib, pytest
        NOTES = pathlib.Path(__file__).parent / "notes"
        def note(word):
            with NOTES.open("a") as file:
                file.write(f"{word} {os.getpid()}\\n")
        @pytest.fixture(scope="session")
        def dear():
            note("begin")
            yield
            note("end")
        @pytest.fixture(autouse=True)
        def _noted(request):
            note(request.node.name)
        """,
    "test_fine.py": """
        import os, pytest
        @pytest.mark.parametrize("number", range(20))
        def test_fine(dear, number):
            pass
        def test_excused():
            pytest.skip("not today")
        def test_output_is_its_own(capfd):
            os.write(1, b"here")
            assert capfd.readouterr().out == "here"
        """,
    "test_wrong.py": """
        import subprocess, time
        def test_slow(dear):
            time.sleep(0.5)
        def test_wrong(dear):
            subprocess.run(["echo", "said by a child"], check=True)
            assert [1, 2] == [1, 3], "and why"
        """,
    "test_dies.py": """
        import os
        def test_before(): pass
        def test_dies(): os.kill(os.getpid(), 9)
        def test_behind(): pass
        """,
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the suite came to."""

    status: int
    shown: str
    """Everything that it printed."""
    notes: tuple[tuple[str, str], ...]
    """Words and the processes that wrote them, in order."""


@pytest.fixture(scope="module", name="seen")
def _seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    place = tmp_path_factory.mktemp("suite")
    for file, text in SUITE.items():
        lines = text.strip("\n").splitlines()
        (place / file).write_text("\n".join(line[8:] for line in lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests",
            "-c",
            "/dev/null",
            "-p",
            "no:cacheprovider",
            "-ra",
            f"--rootdir={place}",
            place,
        ],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    notes = tuple(tuple(line.split()) for line in (place / "notes").read_text(encoding="utf-8").splitlines())
    return Seen(status=done.returncode, shown=done.stdout, notes=notes)  # type: ignore[arg-type]


def test_every_test_is_run_once(seen: Seen):
    """Whoever takes its file, each test runs once, and what follows a death not at all; the last line counts them all."""
    ran = Counter(word for word, _ in seen.notes if word.startswith("test_"))
    assert set(ran.values()) == {1}
    assert len(ran) == 26
    assert "test_behind" not in ran
    assert re.search(r"= 3 failed, 23 passed, 1 skipped in [\d.]+s.* =+$", seen.shown.strip())


def test_what_failed_is_shown_whole(seen: Seen):
    """With what it compared, what its children said, and a line at the end; the exit status says so."""
    assert seen.status == 1
    assert 'assert [1, 2] == [1, 3], "and why"' in seen.shown
    assert "said by a child" in seen.shown
    assert "/test_wrong.py::test_wrong - AssertionError: and why" in seen.shown
    assert re.search(r"/test_fine\.py:\d+: not today", seen.shown)


def test_a_worker_that_dies_is_a_failure(seen: Seen):
    """Of the test that it was in, and of what it then did not come to; the others go on."""
    assert "/test_dies.py::test_dies - the worker died in it, with exit status -9" in seen.shown
    assert "/test_dies.py::test_behind - not run: the worker died before" in seen.shown


def test_files_are_shared_and_fixtures_ended(seen: Seen):
    """More than one process takes files, no file is split, and a worker ends what it began for the whole session."""
    assert len({process for _, process in seen.notes}) > 1
    assert len({process for word, process in seen.notes if word.startswith("test_fine")}) == 1
    begun = [process for word, process in seen.notes if word == "begin"]
    ended = [process for word, process in seen.notes if word == "end"]
    assert sorted(begun) == sorted(ended)
    assert begun


def test_the_tables_name_files():
    """Each file that goes first exists, and each part of a name is one of a file of tests."""
    assert [path for path in FIRST if not (ROOT / path).is_file()] == []
    tests = [f"/{name(path)}" for path in files(".py", below="tests") if path.name.startswith("test_")]
    assert [part for part in ONE_BY_ONE if not any(part in path for path in tests)] == []


def test_nobody_asks_who_it_is_at_import():
    """Tests run in a fork of the process that imported them, so a pid that a module asked for is another's."""
    asking = [
        f"{name(path)}:{node.lineno}"
        for path in files(".py", below="tests")
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute)
        and node.attr in {"getpid", "getppid", "gettid", "get_native_id"}
        and not any(isinstance(inner, ast.Lambda) for inner in ast.walk(statement))
    ]
    assert asking == []
