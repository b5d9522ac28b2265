"""What every test lives by: short temporary paths, no process left behind, no silent skip in CI."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from tests.support import machine

IN_CI = os.environ.get("CI") == "true"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--machine",
        choices=machine.MACHINES,
        default=machine.chosen,
        help="linux: every test, on this machine; darwin: those that need a machine, on a Mac that mirrors this one",
    )


def pytest_configure(config: pytest.Config) -> None:
    machine.chosen = config.getoption("machine")
    settings.register_profile("untimed", deadline=None)  # how fast an example is says something of the machine only
    settings.load_profile("untimed")
    config.addinivalue_line("markers", "ordinary: needs a uid other than 0")
    config.addinivalue_line("markers", "linux(reason): what it needs, or tests, is on Linux only")
    config.addinivalue_line("markers", "darwin(reason): what it needs, or tests, is on macOS only")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return None if machine.concerns(collection_path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of another machine; skip, with the reason, what the uid cannot do."""
    others = [each for each in items if not machine.runs(each)]
    config.hook.pytest_deselected(items=others)
    items[:] = [each for each in items if each not in set(others)]
    root = os.geteuid() == 0
    for item in items:
        if item.get_closest_marker("root") and not root:
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))
        if item.get_closest_marker("ordinary") and root:
            item.add_marker(pytest.mark.skip(reason="needs a uid other than 0"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skip is a failure, unless the other of the two runs (root, ordinary user) executes the test."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        excused = item.get_closest_marker("root") or item.get_closest_marker("ordinary")
        if not excused:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Fail a test that leaves a child process behind."""
    before = _below(os.getpid()) | _below(os.getpid())  # one reading may miss a process while another one ends
    yield
    left = []
    for pid in _below(os.getpid()) - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    _gone, alive = psutil.wait_procs(left, timeout=3)
    described = [f"{child.pid} {_command(child)}" for child in alive]
    for child in alive:
        child.kill()
    assert not described, f"processes left behind: {described}"


def _below(pid: int) -> set[int]:
    """Every process below this one. As the kernel lists them, where it does: psutil reads the whole table."""
    if not Path("/proc/self/task").is_dir():
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(word) for word in (task / "children").read_bytes().split()}
    return found.union(*(_below(child) for child in found))


def _command(child: psutil.Process) -> str:
    try:
        return " ".join(child.cmdline()) or child.status()
    except psutil.Error:
        return "gone"


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A private directory with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
