"""One control daemon for all tests that only look, and a fresh one for those that change something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_instance import Installation


@pytest.fixture(scope="session")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A daemon whose state no test may change."""
    installation = Installation(tmp_path_factory.mktemp("look"))
    with installation.daemon(sessions=2, records=30):
        yield installation


@pytest.fixture
def idle(tmp_path: Path) -> Installation:
    """An installation; the test starts its daemon."""
    return Installation(tmp_path)


@pytest.fixture
def fresh(idle: Installation) -> Iterator[Installation]:
    """A daemon of this test's own."""
    with idle.daemon():
        yield idle
