"""The fallback as a daemon may use it: lineage, and nothing that could be taken for a proof.

Rules: exec counters of process events are never handed out as exact, for an event may be lost at any time and a counter
from here must never be compared with one of the kernel recorder; nothing is confirmed or refuted by them. In a network,
pid or user namespace of our own the kernel does not speak to us: absent, with its reason.
"""

from __future__ import annotations

import sys

import msgspec

from attestd.errors import AttestdError
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Connection, ExecEvent, Losses, ProcessKey, ProcessRecord, Recorder
from attestd.kernel.linux.connector.recorder import ConnectorRecorder

if sys.platform != "linux":
    raise ImportError("cannot use the proc connector on this platform: it needs Linux")


def open_fallback() -> Recorder:
    """Process events if the kernel gives them to us, else an absent recorder with the exact reason."""
    try:
        return LineageOnly(ConnectorRecorder())
    except AttestdError as error:
        return AbsentRecorder(f"{error.message}; {error.hint}" if error.hint else error.message)
    except OSError as error:
        return AbsentRecorder(f"cannot follow process events: {(error.strerror or str(error)).lower()}")


class LineageOnly:
    """Implements ``attestd.evidence.recorder.Recorder`` over another one, of which it lets only lineage through."""

    def __init__(self, source: Recorder) -> None:
        """Takes over ``source``."""
        self._source = source

    def state(self) -> tuple[str, str]:
        """See ``Recorder``; with what was lost."""
        state, reason = self._source.state()
        lost = self._source.losses() if state != "absent" else None
        if lost is None or not lost.dirty_epochs:
            return state, reason
        return state, f"{reason}; {lost.unknown_events} events lost in {lost.dirty_epochs} gaps"

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """The record, its counter never exact."""
        found = self._source.process(key)
        return None if found is None else _weak(found)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """Never known here."""
        del key
        return None

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """See ``Recorder``."""
        return tuple(_weak(each) for each in self._source.lineage(key, limit))

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """Never known here."""
        del key, exec_counter
        return None

    def connection(self, cookie: int) -> Connection | None:
        """Never known here."""
        del cookie
        return None

    def losses(self) -> Losses:
        """See ``Recorder``."""
        return self._source.losses()

    def close(self) -> None:
        """Close what it stands on. Idempotent."""
        self._source.close()


def _weak(record: ProcessRecord) -> ProcessRecord:
    return msgspec.structs.replace(
        record, counter_exact=False, parent_exact=False, image_claimed=record.image is not None
    )
