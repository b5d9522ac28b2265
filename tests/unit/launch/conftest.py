"""Fixtures of the launcher's tests."""

from __future__ import annotations

import pytest

from tests.support.launching import Mark


@pytest.fixture
def mark() -> Mark:
    """A new mark."""
    return Mark()
