"""Opening, step by step, where a crash may have come between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from attestd.audit.files import FIRST_KEY_NAME
from attestd.audit.log import LogLimits
from attestd.audit.verify import verify
from attestd.errors import AuditUnavailableError
from tests.support.audit import START_NS, entry, make_log, open_log


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_crash_while_a_log_begins_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    """Killed after any of the files that a new log begins with, the next start begins anew, with one key."""
    directory = tmp_path / "log"
    true_rename, count = os.rename, [0]

    def rename(*args: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == step:
            raise OSError(5, "killed here")
        true_rename(*args, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(AuditUnavailableError, match="killed here"):
        open_log(directory)
    monkeypatch.undo()
    with open_log(directory) as log:
        log.append(entry(), START_NS)
    assert verify(directory).ok
    assert len(list((directory / "keys").iterdir())) == 1


def test_a_crash_between_naming_the_next_key_and_destroying_the_old_one(tmp_path: Path):
    """The old key's file is still there at the next start: it is destroyed then, and the new key signs on."""
    directory = tmp_path / "log"
    limits = LogLimits(checkpoint_records=10_000)
    with open_log(directory, limits=limits) as log:
        log.append(entry(), START_NS)
        with log._lock:
            log._writer.seal(START_NS, turn=True)
            log._writer.segment.sync()
        assert len(list((directory / "keys").iterdir())) == 2
    with open_log(directory) as log:
        assert len(list((directory / "keys").iterdir())) == 1
        log.append(entry(), START_NS)
    assert verify(directory).ok


def test_a_key_that_was_made_but_never_named_is_destroyed(tmp_path: Path):
    """A crash before the checkpoint leaves a key too many; the current one stays."""
    directory = tmp_path / "log"
    make_log(directory, (1,))
    (directory / "keys" / ("00" * 32 + ".key")).write_bytes(b"x" * 32)
    with open_log(directory) as log:
        log.append(entry(), START_NS)
    assert len(list((directory / "keys").iterdir())) == 1
    assert verify(directory).ok


def test_the_first_key_stays_what_it_was(tmp_path: Path):
    """Opening again does not touch the public key that everything follows from."""
    directory = tmp_path / "log"
    make_log(directory, (1,))
    before = (directory / FIRST_KEY_NAME).read_bytes()
    open_log(directory).close()
    assert (directory / FIRST_KEY_NAME).read_bytes() == before


def test_a_full_disk_at_opening_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No half-begun log pretends to work."""
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(AuditUnavailableError, match="cannot open the audit log"):
        open_log(tmp_path / "log")
