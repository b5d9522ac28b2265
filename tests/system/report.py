"""One line for each thing that was shown, PASS or FAIL; nothing that fails stops the rest."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

from tests.system.machine import FailedError


class Report:
    """What was shown so far."""

    def __init__(self, wanted: tuple[str, ...] = ()) -> None:
        """``wanted``: only checks that contain one of these words are run; none: all."""
        self._wanted = wanted
        self._began = time.monotonic()
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.trouble: Callable[[], str] = str
        """What else to show when something failed."""

    def wants(self, group: str) -> bool:
        """Whether a group of checks is to be run."""
        return not self._wanted or any(word in group for word in self._wanted)

    @contextlib.contextmanager
    def check(self, sentence: str) -> Iterator[list[str]]:
        """Show that the sentence is true; the list takes figures that are printed with it."""
        figures: list[str] = []
        try:
            yield figures
        except (AssertionError, FailedError, OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
            self.failed.append(sentence)
            why = str(error) or type(error).__name__
            print(f"FAIL  {sentence}\n      {why.strip()}\n{_indented(self.trouble())}", flush=True)
        else:
            self.passed.append(sentence)
            shown = f"  [{', '.join(figures)}]" if figures else ""
            print(f"PASS  {sentence}{shown}", flush=True)

    def end(self) -> int:
        """The last lines, and the exit code: 0 exactly if something was shown and nothing failed."""
        for sentence in self.failed:
            print(f"failed: {sentence}")
        seconds = time.monotonic() - self._began
        print(f"system test: {seconds:.0f} s\n{len(self.passed)} passed, {len(self.failed)} failed", flush=True)
        return 0 if self.passed and not self.failed else 1


def expect(condition: object, text: str) -> None:
    """An assertion that says what was seen. Raises AssertionError."""
    if not condition:
        raise AssertionError(text)


def until(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    """Wait for something that the system does by itself. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def _indented(text: str) -> str:
    return "".join(f"      | {line}\n" for line in text.splitlines()[-12:])
