"""The writer's state moves only with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestd.audit import notes
from attestd.errors import AuditUnavailableError
from tests.support.audit import ORIGIN, START_NS, entry, open_log


def test_state_stays_where_it_was_when_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Records, callers, checkpoints: a failed write leaves chain, tree and counts alone."""
    with open_log(tmp_path / "log") as log:
        writer = log._writer
        log.append(entry(), START_NS)
        log.sync_now()
        before = (writer.head(), writer.unsealed, set(writer.position.callers), writer.position.epoch)

        def fail(_: object) -> Any:
            raise AuditUnavailableError("cannot write")

        monkeypatch.setattr(writer.segment, "write", fail)
        for attempt in (
            lambda: log.append(entry(), START_NS),
            lambda: log.caller(b"{}", START_NS),
            log.checkpoint_now,
            lambda: writer.seal(START_NS, turn=True),
        ):
            with pytest.raises(AuditUnavailableError):
                attempt()
        assert (writer.head(), writer.unsealed, set(writer.position.callers), writer.position.epoch) == before
        monkeypatch.undo()


def test_a_checkpoint_states_the_head(tmp_path: Path):
    """Origin, size, root, chain and epoch are those of the log when it was signed."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
        head = log.head()
        stated = notes.read_checkpoint(log.checkpoint_now())
    assert (stated.origin, stated.size, stated.epoch) == (ORIGIN, 1, 0)
    assert (stated.root.hex(), stated.chain.hex()) == (head.root, head.chain)
    assert stated.next_key is None
