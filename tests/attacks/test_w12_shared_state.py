"""W12: state of one caller visible to another through a shared back end."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.instance import Client
from tests.support.naive_proxy import proxied
from tests.support.wire_attacks import SUPPORT, Ring, until

pytestmark = pytest.mark.attack("W12")

NOTEBOOK = [sys.executable, str(SUPPORT / "notebook_server.py")]


@pytest.fixture(scope="module", name="notebook")
def _notebook(wire: Ring) -> Iterator[str]:
    """The notebook for two granted programs."""
    wire.instance.server("notebook", command=NOTEBOOK)
    wire.instance.ctl("reload")
    for script in (None, wire.instance.talker("second", "second.py")):
        wire.instance.grant(script, server="notebook")
    yield "notebook"
    (wire.instance.config / "servers.d" / "notebook.toml").unlink()
    wire.instance.ctl("reload")


def said(client: Client, tool: str, **arguments: str) -> str:
    """The text that a tool answers."""
    return str(client.call(tool, **arguments)["result"]["content"][0]["text"])


@pytest.mark.linux("no attestd stands between")
def test_one_back_end_for_all_remembers_for_all():
    """Without the control: a proxy with one back end passes what the first caller left to the next."""
    with proxied(NOTEBOOK, "remember", "recall") as proxy:
        said(proxy, "remember", text="the victim's password")
        assert said(proxy, "recall") == "the victim's password"


def test_each_connection_has_its_own_state(wire: Ring, notebook: str):
    """Another program sees nothing, and neither does the same program on a second connection."""
    second = wire.instance.talker("second", "second.py")
    with (
        wire.client(notebook) as victim,
        wire.client(notebook, script=second) as other,
        wire.client(notebook) as again,
    ):
        said(victim, "remember", text="the victim's password")
        assert said(victim, "recall") == "the victim's password"
        assert said(other, "recall") == "nothing"
        assert said(again, "recall") == "nothing"


def test_the_state_ends_with_the_connection(wire: Ring, notebook: str):
    """A new connection of the same program starts afresh, and the old server process is gone."""
    with wire.client(notebook) as victim:
        said(victim, "remember", text="the victim's password")
    until(lambda: state(wire, notebook) == 0, "the end of the session")
    with wire.client(notebook) as again:
        assert said(again, "recall") == "nothing"


def state(wire: Ring, server: str) -> int:
    """Live sessions on a server."""
    return len([s for s in wire.instance.ctl("ps") if s.get("server") == server])
