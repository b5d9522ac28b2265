"""The offline report has the shape of the daemon's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.cli.offline import verify_directory
from attestd.control.replies import Verification
from attestd.errors import ConfigurationError


def test_json_and_value_are_the_same_report(tmp_path: Path) -> None:
    """Scripts and people get one and the same."""
    with AuditLogFile(tmp_path / "log", origin="test.example/log") as log:
        log.append(Entry(kind="admin", id="x", verdict="ok"), 1)
    answer = verify_directory(tmp_path / "log", (), None, lambda _: None)
    assert isinstance(answer.value, Verification)
    assert msgspec.json.decode(answer.json, type=Verification) == answer.value


def test_no_directory_is_a_configuration_error(tmp_path: Path) -> None:
    """A log that is not there is not an empty log."""
    with pytest.raises(ConfigurationError):
        verify_directory(tmp_path / "none", (), None, lambda _: None)
