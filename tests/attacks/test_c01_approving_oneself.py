"""C1: an agent approves itself with attestctl."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import AGENT, WAYS, agent, attestctl, in_tmux
from tests.support.instance import Instance, cause, running

pytestmark = pytest.mark.attack("C1")


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def waiting(instance: Instance, mark: str) -> str:
    """The code of a refused program."""
    with instance.client(instance.talker(mark, f"{mark}.py")) as client:
        return str(client.initialize()["error"]["data"]["code"])


def approval(instance: Instance, code: str) -> list[str]:
    """A complete approval, with nothing left to ask."""
    words = ["--all-tools", "--launched-by", "unreadable", "--for", "1h", "--yes", "--inline"]
    return attestctl(instance, "approve", code, *words)


def test_the_uid_tells_nothing(instance: Instance):
    """Without the control: a daemon that asks only for the uid of the caller takes the agent for the person."""
    path = instance.root / "naive.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); s.sendall(b'approve')"
        agent(instance, sys.executable, "-c", code)
        connection, _ = listener.accept()
        with connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert struct.unpack("3i", credentials)[1] == os.geteuid()
            assert connection.recv(100) == b"approve"


@pytest.mark.ordinary
@pytest.mark.parametrize("way", WAYS)
def test_an_agent_is_no_approver(instance: Instance, way: str):
    """Whatever stands between the agent and attestctl: refused with exit 4, recorded, and no grant is made."""
    code = waiting(instance, f"wants-{way.replace(' ', '')}")
    before = len(instance.records(cause="not_approver"))
    status, said = WAYS[way](instance, approval(instance, code))
    assert status == 4, said
    assert "cannot take this from" in said
    records = instance.records(cause="not_approver")
    assert len(records) == before + 1
    assert records[-1]["id"] == code
    assert records[-1]["verdict"] == "deny"
    assert code in [entry["code"] for entry in instance.pending()]
    assert instance.ctl("grants", "list") == []


@pytest.mark.ordinary
@pytest.mark.parametrize(
    "words", [["deny", "CODE"], ["grants", "revoke", "g-1"], ["servers", "remove", "echo"], ["reload"]]
)
def test_other_acts_are_protected_too(instance: Instance, words: list[str]):
    """An agent can neither deny for the person, nor revoke, nor change the configuration through attestctl."""
    code = waiting(instance, "wants-more")
    status, said = agent(instance, *attestctl(instance, *(word.replace("CODE", code) for word in words)))
    assert status == 4, said
    assert code in [entry["code"] for entry in instance.pending()]
    with instance.client(instance.talker("wants-more", "wants-more.py")) as client:
        assert cause(client.initialize()) == "no_grant"


@pytest.mark.ordinary
def test_a_granted_program_is_no_approver(instance: Instance):
    """A grant to call a server is none to decide about others."""
    script = instance.script("agent.py", AGENT)
    code = waiting(instance, "wants-by-friend")
    assert script.exists()
    status, said = agent(instance, *approval(instance, code))
    assert status == 4, said


@pytest.mark.linux("a clean chain; no signature of Apple's stands above a prompt of the mirrored Mac")
@pytest.mark.ordinary
def test_a_person_at_a_shell_in_a_terminal_may(instance: Instance):
    """The contrast: the same words typed at the prompt of a shell in tmux make the grant, by a clean chain.

    Whoever can type into that terminal can do this, an agent included (``status`` says so): the chain proves which
    programs stand there, not who types.
    """
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    code = waiting(instance, "wants-person")
    status, said = in_tmux(instance, approval(instance, code))
    assert status == 0, said
    grants = instance.ctl("grants", "list")
    assert len(grants) == 1
    instance.ctl("grants", "revoke", grants[0]["id"])
    status_words = instance.ctl("status")[0]["not_protected"]
    assert any("guarded only by the chain" in words for words in status_words)


@pytest.mark.root
@pytest.mark.parametrize("way", ["directly", "sh -c", "double fork"])
def test_root_may(instance: Instance, way: str):
    """The contrast: what runs as root decides, whatever started it, and the log says that it was root."""
    code = waiting(instance, f"wants-{way.replace(' ', '')}")
    status, said = WAYS[way](instance, approval(instance, code))
    assert status == 0, said
    record = instance.records(method="grant.approve")[-1]
    assert record["uid"] == 0
    assert record["detail"]["how"] == "root"
    instance.ctl("grants", "revoke", record["id"])
