"""A pytest plugin: ``--workers=N`` shares the files of a run among N processes, because most of their time is waiting.

1. One process collects, then forks the workers. A worker takes one file after the other, long ones first, and sends the
   reports of its tests; the first process shows each file when it is done. So what is shown at the end, the counts and
   the exit status are pytest's own, over every test that was collected.
2. Files that load the recorder into the kernel, or make it lose events of the whole machine, are one after the other.
3. A worker that dies is a failure of the test that it was in, and of those of this file that it did not come to.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest

ONE_BY_ONE = ("/test_recorder", "/test_connector_losses", "/test_recorders", "/test_i04_pid_reuse", "/test_tcp_peers")
"""Parts of the names of files that see, or make, events of the whole machine."""
FIRST = (
    "tests/e2e/test_sdk.py",
    "tests/e2e/test_eras.py",
    "tests/e2e/test_http_fronts.py",
    "tests/e2e/test_http_backs.py",
    "tests/attacks/test_c05_named_steps.py",
    "tests/attacks/test_w_http.py",
    "tests/attacks/test_c05_killed_daemon.py",
    "tests/e2e/test_sealing.py",
    "tests/e2e/test_npm_http_backs.py",
)
"""The longest files, longest first; the others follow as they are collected."""

Unit = list[int]
"""Numbers of tests in the session's list, those of one file or of the files that go one by one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=0, help="processes that share the files; 0: none but this one")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In place of pytest's own loop."""
    count = session.config.getoption("--workers")
    if count < 1 or session.config.option.collectonly or session.testsfailed:
        return None
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # one for all workers
    units = list(shared(session.items))
    units.reverse()
    workers = [Worker(session) for _ in range(min(count, len(units)))]
    try:
        for worker in workers:
            worker.fill(units)
        while running := {worker.pipe: worker for worker in workers if worker.unit}:
            for pipe in wait(list(running)):
                running[pipe].hear(units)  # type: ignore[index]
                if session.shouldfail or session.shouldstop:
                    units.clear()
    finally:
        for worker in workers:
            worker.end()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    return True


def shared(items: list[pytest.Item]) -> Iterator[Unit]:
    """What one worker takes at once: first what goes one by one, then the long files, then the others."""
    files: dict[str, Unit] = {}
    for number, item in enumerate(items):
        files.setdefault(item.nodeid.split("::")[0], []).append(number)
    alone = [name for name in files if any(part in f"/{name}" for part in ONE_BY_ONE)]
    if alone:
        yield [number for name in alone for number in files.pop(name)]
    yield from (files.pop(name) for name in FIRST if name in files)
    yield from files.values()


class Worker:
    """A forked process that runs what it is given, seen from the first one."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self.unit: Unit = []
        """What it was given and has not done."""
        self._last = False
        """It knows that nothing more comes."""
        self._reports: list[tuple[int, list[Any]]] = []
        self.pipe, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self.pipe.close()
            _work(session, theirs)
        theirs.close()

    def fill(self, units: list[Unit]) -> None:
        """Give it more if it has one test left or none: it must know what comes after a test when it begins one."""
        while len(self.unit) < 2 and not self._last:
            unit = units.pop() if units else []
            self._last = not unit
            self.unit += unit
            self.pipe.send(unit)

    def hear(self, units: list[Unit]) -> None:
        """Take one message: the reports of a test; give it more when it has run all that it had."""
        try:
            reports = self.pipe.recv()
        except EOFError:
            self._died()
            return
        if isinstance(reports, str):
            raise RuntimeError(f"a worker failed:\n{reports}")  # noqa: TRY004 - the message is no mistake
        self._reports.append((self.unit.pop(0), reports))
        items = self._session.items
        if not self.unit or items[self.unit[0]].path != items[self._reports[-1][0]].path:
            self._show()
        self.fill(units)

    def end(self) -> None:
        """No more for it; and its end, which it must not miss."""
        self.pipe.close()
        if self._pid:
            os.waitpid(self._pid, 0)

    def _show(self) -> None:
        hook, config = self._session.config.hook, self._session.config
        for number, reports in self._reports:
            item = self._session.items[number]
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for data in reports:
                report = config.hook.pytest_report_from_serializable(config=config, data=data)
                hook.pytest_runtest_logreport(report=report)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._reports.clear()

    def _died(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        why = f"the worker died in it, with exit status {os.waitstatus_to_exitcode(status)}"
        for number in self.unit:
            item = self._session.items[number]
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
            data = self._session.config.hook.pytest_report_to_serializable(config=self._session.config, report=report)
            self._reports.append((number, [data]))
            why = "not run: the worker died before"
        self.unit = []
        self._show()


class Sender:
    """In a worker: what becomes of the reports of a test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.reports: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))


def _work(session: pytest.Session, pipe: Connection) -> None:
    """The life of a worker; does not return."""
    status = 1
    try:
        config = session.config
        _capture_apart(config)
        config.pluginmanager.unregister(name="terminalreporter")
        sender = Sender(config)
        config.pluginmanager.register(sender)
        numbers = _given(pipe)
        current = next(numbers, None)
        while current is not None:
            following = next(numbers, None)
            item = session.items[current]
            after = None if following is None else session.items[following]
            config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            pipe.send(sender.reports)
            sender.reports = []
            current = following
        status = 0
    except BaseException:
        with contextlib.suppress(OSError):
            pipe.send(traceback.format_exc())
        session._setupstate.teardown_exact(None)
    finally:
        os._exit(status)


def _capture_apart(config: pytest.Config) -> None:
    """Other files behind the descriptors that what is printed goes to: those of the first process have one position."""
    if config.option.capture != "fd":
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.resume_global_capture()
    for stream in (sys.stdout, sys.stderr):
        with tempfile.TemporaryFile(buffering=0) as file:
            os.dup2(file.fileno(), stream.fileno(), inheritable=False)
    capture.suspend_global_capture()


def _given(pipe: Connection) -> Iterator[int]:
    while unit := pipe.recv():
        yield from unit
