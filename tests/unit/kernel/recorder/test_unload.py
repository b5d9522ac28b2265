"""Unloading what is not there. The rest is tested with a loaded recorder, in tests/kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.errors import NothingToDoError
from attestd.kernel.linux.recorder.unload import unload


def test_nothing_is_loaded(tmp_path: Path):
    """It says so."""
    with pytest.raises(NothingToDoError, match="not loaded"):
        unload(str(tmp_path / "none"))


def test_a_killed_loader(tmp_path: Path):
    """What it left is removed with the rest."""
    (tmp_path / "attestd" / "new-7").mkdir(parents=True)
    unload(str(tmp_path / "attestd"))
    assert list(tmp_path.iterdir()) == []
