"""``seals.json``."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.daemon.seal_file import Seal, load_seals, store_seals
from attestd.errors import ConfigurationError

SEALS = (Seal(server="a", port=80, how="redirect"), Seal(server="b", port=81, how="refuse"))


def test_what_was_stored_is_loaded(tmp_path: Path):
    """No file is no seal; nothing half-written is left; nobody else may read it."""
    path = tmp_path / "seals.json"
    assert load_seals(path) == ()
    store_seals(path, SEALS)
    assert load_seals(path) == SEALS
    store_seals(path, ())
    assert load_seals(path) == ()
    assert [each.name for each in tmp_path.iterdir()] == ["seals.json"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", '[{"server":"a"}]', '[{"server":"a","port":0,"how":"refuse"}]', "[1]"])
def test_a_file_that_is_not_understood_is_an_error(tmp_path: Path, text: str):
    """A seal is never forgotten in silence."""
    path = tmp_path / "seals.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"cannot read .*seals\.json") as error:
        load_seals(path)
    assert "stays sealed" in error.value.hint


def test_a_directory_that_is_not_there(tmp_path: Path):
    """The reason is told."""
    with pytest.raises(ConfigurationError, match="cannot write"):
        store_seals(tmp_path / "none" / "seals.json", SEALS)
