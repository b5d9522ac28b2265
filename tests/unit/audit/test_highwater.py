"""The high-water mark."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.audit.highwater import read_high_water, write_high_water
from attestd.errors import ConfigurationError, IntegrityError
from tests.support.audit import START_NS, entry, open_log


def test_the_mark_is_the_checkpoint(tmp_path: Path):
    """What is written is the signed note; what is read is the head it states."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
        head, note = log.head(), log.checkpoint_now()
    write_high_water(tmp_path / "mark", note)
    assert (tmp_path / "mark").read_text() == note
    assert read_high_water(tmp_path / "mark") == head


def test_no_mark_is_none_and_a_broken_one_an_error(tmp_path: Path):
    """A mark that does not parse is not taken for none."""
    assert read_high_water(tmp_path / "mark") is None
    for content in (b"", b"nonsense", b"\xff"):
        (tmp_path / "mark").write_bytes(content)
        with pytest.raises(IntegrityError, match="cannot read the checkpoint in"):
            read_high_water(tmp_path / "mark")
    with pytest.raises(ConfigurationError, match="cannot read the high-water mark"):
        read_high_water(tmp_path / "nowhere" / "mark")
