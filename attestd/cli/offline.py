"""Verifies an audit directory without a daemon, and tells it as the daemon would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from attestd.audit.highwater import read_high_water
from attestd.audit.verify import verify
from attestd.control.client import Answer
from attestd.control.replies import Problem, Progress, Verification
from attestd.errors import ConfigurationError


def verify_directory(
    directory: Path, keys: tuple[str, ...], head: Path | None, progress: Callable[[Progress], None]
) -> Answer:
    """Verify.

    Raises ConfigurationError for what is missing or cannot be read, IntegrityError for a bad key or head.
    """
    external = None
    if head is not None:
        external = read_high_water(head)
        if external is None:
            raise ConfigurationError(f"cannot read the checkpoint {head}: there is no such file")

    def step(done: int) -> None:
        progress(Progress(done=done, total=0, what="records"))

    try:
        report = verify(directory, expected_key=keys or None, external_head=external, progress=step)
    except OSError as error:
        raise ConfigurationError(f"cannot read the log in {directory}: {error.strerror or error}") from error
    verification = Verification(
        ok=report.ok,
        records=report.records,
        segments=report.segments,
        head=report.head.root,
        problems=tuple(
            Problem(what=found.what, record=found.seq, segment=str(found.segment), offset=found.offset)
            for found in report.problems
        ),
    )
    return Answer(json=msgspec.Raw(msgspec.json.encode(verification)), value=verification)
