"""A scene on the Mac in memory for every test of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import macs


@pytest.fixture(name="scene")
def _scene() -> Iterator[macs.Scene]:
    with macs.scene() as made:
        yield made
