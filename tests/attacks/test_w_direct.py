"""W1 to W13 without the control: what each real server does with each variant if nobody stands between.

``observed.toml`` holds it, variant by variant; where a server refuses an attack itself, that is what stands there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.attack_backs import BACKS, Back, await_true, backs
from tests.support.attack_direct import EXECUTED, direct, outcome
from tests.support.attack_rows import PROCEDURES, ROWS
from tests.support.http_client import PIPES, Caller
from tests.support.npm import MissingError

pytestmark = [
    pytest.mark.linux("no attestd stands between"),
    pytest.mark.attack("W1"),
    pytest.mark.attack("W2"),
    pytest.mark.attack("W3"),
    pytest.mark.attack("W4"),
    pytest.mark.attack("W5"),
    pytest.mark.attack("W6"),
    pytest.mark.attack("W7"),
    pytest.mark.attack("W8"),
    pytest.mark.attack("W9"),
    pytest.mark.attack("W10"),
    pytest.mark.attack("W11"),
    pytest.mark.attack("W12"),
    pytest.mark.attack("W13"),
]
OBSERVED: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
    (Path(__file__).parent / "observed.toml").read_text(encoding="utf-8")
)
IMMUNE = {"W7": "each server that reads the routing headers compares them with the body itself, and answers -32020"}
"""Rows that work on none of these servers; a proxy that believes the headers is what they are for."""


class Ground(msgspec.Struct, frozen=True):
    """The servers and one client process."""

    root: Path
    backs: dict[str, Back]
    client: Caller


@pytest.fixture(scope="module", name="ground")
def _ground() -> Iterator[Ground]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    program = root / "pipes.py"
    program.write_text(PIPES, encoding="utf-8")
    try:
        with backs(root) as found:
            words = [sys.executable, "-u", str(program)]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            try:
                yield Ground(root, found, Caller(process, "", ""))
            finally:
                process.communicate()
    except MissingError as error:
        pytest.skip(f"no servers of TypeScript: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("place", OBSERVED)
def test_what_a_server_does_by_itself(ground: Ground, place: str):
    """Every variant of every row has the outcome that is on record: executed, or refused in this way."""
    name, era = place.split()
    back = ground.backs[name]
    found: dict[str, dict[str, str]] = {}
    with direct(back, era, ground.client, ground.root) as channel:
        for row in ROWS:
            for variant, mark in channel.attacks(row, back.port if back.url else 0):
                expected = OBSERVED[place].get(row, {}).get(variant.name, "")
                found.setdefault(row, {})[variant.name] = outcome(back, channel, variant, mark, expected)
    assert found == OBSERVED[place]


def test_every_server_and_era_is_observed():
    """And every row works on one of them, has a reason why it works on none, or is a procedure that is shown below."""
    places = {place.split()[0] for place in OBSERVED}
    assert places == set(BACKS)
    works = {row for rows in OBSERVED.values() for row, outcomes in rows.items() if EXECUTED in outcomes.values()}
    assert set(ROWS) - works - set(IMMUNE) <= set(PROCEDURES)
    assert not works & IMMUNE.keys()


W8 = {
    "python-stdio legacy": "-32602",
    "python-stdio modern": EXECUTED,
    "python-http legacy": "400 -32600",
    "python-http modern": EXECUTED,
    "ts1-stdio legacy": EXECUTED,
    "ts1-http legacy": "400 -32000",
    "ts1-sse legacy": EXECUTED,
    "ts2-stdio legacy": EXECUTED,
    "ts2-stdio modern": EXECUTED,
    "ts2-http legacy": EXECUTED,
    "ts2-http modern": EXECUTED,
}


@pytest.mark.parametrize("place", W8)
def test_a_call_as_the_first_word(ground: Ground, place: str):
    """W8: for most servers the handshake is no gate."""
    name, era = place.split()
    back = ground.backs[name]
    with direct(back, era, ground.client, ground.root, "first", begin=False) as channel:
        mark = f"{place} first"
        variant = msgspec.structs.replace(channel.proper("steal", text=mark), noted=("steal", mark))
        assert outcome(back, channel, variant, mark, W8[place]) == W8[place]


@pytest.mark.parametrize("name", ["python-http", "ts1-http", "ts1-sse"])
def test_the_session_of_another(ground: Ground, name: str):
    """W9: who knows its name is in it, and hears and says what its owner may. W12: and sees what the owner left."""
    back = ground.backs[name]
    with (
        direct(back, "legacy", ground.client, ground.root, "victim") as victim,
        direct(back, "legacy", ground.client, ground.root, "thief") as thief,
    ):
        victim.tool("remember", text="the victim's password")
        assert "nothing" in str(thief.tool("recall").message)
        thief.caller.session, thief.caller.path = victim.caller.session, victim.caller.path
        if name == "ts1-sse":
            thief.start(thief.proper("recall"))
            assert thief.caller.response(thief.connection).status == 202
            told = victim.receive()
        else:
            told = thief.tool("recall").message
        assert "the victim's password" in str(told)


@pytest.mark.parametrize("name", ["python-stdio", "ts1-stdio", "ts2-stdio"])
def test_one_process_for_two_clients(ground: Ground, name: str):
    """W9 and W12: through a proxy that has one server for all, one client cancels what another asked for, and reads
    what it left."""
    back = ground.backs[name]
    with direct(back, "legacy", ground.client, ground.root, "shared") as victim:
        victim.tool("remember", text="the victim's password")
        mark = f"{name} cancelled"
        slow = victim.proper("slow", seconds=30, text=mark)
        victim.start(slow)
        await_true(lambda: back.noted("begun", mark), "the call has begun")
        victim.tell("notifications/cancelled", requestId=victim._number)  # the other client, on the same pipe
        assert "the victim's password" in str(victim.tool("recall").message)
        assert back.noted("slow", mark) == 0
