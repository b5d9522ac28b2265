"""One daemon and one naive relay for each file of attacks on identity; one daemon for all attacks on the wire."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attackers import Arena, arena
from tests.support.http_client import Booth, booth
from tests.support.system_launcher import Daemon, House, house
from tests.support.wire_attacks import Ring, ring


@pytest.fixture(scope="module", name="arena")
def _arena() -> Iterator[Arena]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with arena(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session", name="wire")
def _wire() -> Iterator[Ring]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with ring(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session", name="http")
def _http() -> Iterator[Booth]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with booth(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", name="house")
def _house() -> Iterator[House]:
    with house() as started:
        yield started


@pytest.fixture(name="daemon")
def _daemon(house: House) -> Iterator[Daemon]:
    """A daemon that does what the attacker wants, on a connection of its own."""
    connected = Daemon(house)
    yield connected
    connected.close()
