"""Who else can write to a standard input."""

from __future__ import annotations

import os
import stat

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.darwin.holders import input_holders
from tests.support.macs import TTY, Scene


def test_a_pipe(scene: Scene):
    """Every process with the writing end is named, the reader's own end and other pipes are not."""
    read, write = scene.mac.pipe()
    client = scene.agent(fds={5: write, 6: scene.mac.pipe()[1]})
    thief = scene.agent(fds={9: write})
    scene.agent(fds={0: read})
    relay = scene.agent(fds={0: read, 4: write})
    found = input_holders(scene.system, relay.pid)
    assert (found.kind, found.pids, found.complete) == ("pipe", (client.pid, thief.pid), True)


def test_a_socket(scene: Scene):
    """The holder of the connected end is named."""
    client = scene.agent(fds={7: ("socket", (71, 72))})
    relay = scene.agent(fds={0: ("socket", (72, 71))})
    found = input_holders(scene.system, relay.pid)
    assert (found.kind, found.pids) == ("socket", (client.pid,))


@pytest.mark.parametrize(
    ("fds", "kind"),
    [
        ({}, "none"),
        ({0: ("vnode", (stat.S_IFREG | 0o644, 0))}, "file"),
        ({0: ("vnode", (stat.S_IFCHR | 0o620, TTY))}, "tty"),
        ({0: ("vnode", (stat.S_IFCHR | 0o666, os.stat(os.devnull).st_rdev))}, "none"),
        ({0: ("socket", (72, 0))}, "unknown"),
        ({0: ("vnode", (stat.S_IFIFO | 0o666, 0))}, "unknown"),
    ],
)
def test_other_inputs(scene: Scene, fds: dict[int, tuple[str, object]], kind: str):
    """Files, terminals, nothing; a named pipe has writers that cannot be listed."""
    found = input_holders(scene.system, scene.agent(fds=fds).pid)
    assert (found.kind, found.pids) == (kind, ())
    assert found.complete is (kind != "unknown")


def test_another_users_process_makes_it_incomplete(scene: Scene):
    """Root's processes do not: login belongs to the chain of every terminal."""
    read, write = scene.mac.pipe()
    relay = scene.agent(fds={0: read})
    scene.agent(fds={1: write})
    assert input_holders(scene.system, relay.pid).complete
    scene.agent(uids=(502, 502, 502))
    assert not input_holders(scene.system, relay.pid).complete


def test_a_relay_of_another_user_or_none(scene: Scene):
    """One that may not be looked at is unknown; one that has gone is refused."""
    assert input_holders(scene.system, scene.agent(uids=(502, 502, 502)).pid).kind == "unknown"
    with pytest.raises(EvidenceError) as refused:
        input_holders(scene.system, 99_999)
    assert refused.value.cause is Cause.PEER_GONE
