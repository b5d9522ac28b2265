"""Pins in the store: kept over a restart, one for each address, forgotten together."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.grants.pins import Pin
from attestd.grants.store import Store


def pin(server: str, url: str, program: str = "ab" * 32) -> Pin:
    """A pin."""
    return Pin(server=server, url=url, program=program, describe="pid 1 /bin/server", since_ns=5)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "grants.db"


def test_pins_outlive_the_store(path: Path):
    """What was kept is there after a restart, and nothing else."""
    store = Store(path)
    first, second = pin("a", "http://h/1"), pin("a", "http://h/2", "cd" * 32)
    for each in (first, second, pin("ab", "http://h/1")):
        store.put_pin(each)
    store.close()
    store = Store(path)
    assert store.pin("a", "http://h/1") == first
    assert store.pin("a", "http://h/2") == second
    assert store.pin("a", "http://h/3") is None
    assert store.pin("b", "http://h/1") is None
    store.close()


def test_pins_of_one_server_are_forgotten_together(path: Path):
    """And those of a server with a longer name stay."""
    store = Store(path)
    for each in (pin("a", "http://h/1"), pin("a", "http://h/2"), pin("ab", "http://h/1")):
        store.put_pin(each)
    assert store.drop_pins("a") == 2
    assert store.drop_pins("a") == 0
    assert store.pin("a", "http://h/1") is None
    assert store.pin("ab", "http://h/1") is not None
    store.close()


def test_a_row_that_cannot_be_read_is_no_pin(path: Path):
    """It is replaced by the next one that is kept."""
    store = Store(path)
    store.put_pin(pin("a", "http://h/1"))
    store._database.execute("UPDATE meta SET v = ? WHERE k LIKE 'pin %'", (b"{",))
    assert store.pin("a", "http://h/1") is None
    store.put_pin(pin("a", "http://h/1"))
    assert store.pin("a", "http://h/1") is not None
    store.close()
