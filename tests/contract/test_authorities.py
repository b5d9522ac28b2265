"""The promises of ``daemon.polkit.Authority``, kept by polkit itself, through a real bus, and by the fake."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.daemon.polkit import APPROVE, MANAGE, Answer, Authority, Polkit, PolkitError, Subject, verdict
from tests.fakes.authority import FakeAuthority
from tests.support.system_instance import ALICE, BUS, SystemInstance


@pytest.fixture(scope="module", name="machine")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemInstance]:
    instance = SystemInstance(tmp_path_factory.mktemp("authority"))
    instance.start_bus()
    yield instance
    instance.close()


@pytest.fixture(scope="module", params=["fake", pytest.param("polkit", marks=pytest.mark.root)], name="authority")
def _authority(request: pytest.FixtureRequest) -> Authority:
    if request.param == "fake":
        return FakeAuthority()
    machine: SystemInstance = request.getfixturevalue("machine")
    return Polkit(machine.path(str(BUS)))


@pytest.fixture(name="process")
def _process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    user = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--"] if os.geteuid() == 0 else []
    process = subprocess.Popen([*user, "sleep", "60"], stdout=subprocess.DEVNULL)
    del request
    yield process
    process.kill()
    process.wait()


def subject_of(process: subprocess.Popen[bytes]) -> Subject:
    """As the daemon names a caller."""
    stat = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    uid = ALICE if os.geteuid() == 0 else os.geteuid()
    return Subject(pid=process.pid, start=int(stat[19]), uid=uid, pidfd=os.pidfd_open(process.pid))


@pytest.mark.parametrize("action", [APPROVE, MANAGE])
async def test_without_an_agent_nobody_is_authorized(
    authority: Authority, process: subprocess.Popen[bytes], action: str
):
    """An ordinary user's process needs a password, and nobody is there to ask for it."""
    subject = subject_of(process)
    assert await authority.check(subject, action, "approve 7F3K-9QRT") is Answer.NO_AGENT
    os.close(subject.pidfd)


async def test_what_polkit_does_not_know_is_an_error(authority: Authority, process: subprocess.Popen[bytes]):
    """No action of that name: no answer, and so no yes."""
    subject = subject_of(process)
    with pytest.raises(PolkitError, match="cannot ask polkit"):
        await authority.check(subject, "dev.attestd.unheard-of", "x")
    os.close(subject.pidfd)


async def test_it_says_which_it_is_and_what_it_knows(authority: Authority):
    """Version and actions, for doctor."""
    assert await authority.version()
    assert await authority.knows(APPROVE)
    assert await authority.knows(MANAGE)
    assert not await authority.knows("dev.attestd.unheard-of")


@pytest.mark.root
async def test_the_shipped_actions_keep_nothing(machine: SystemInstance):
    """Self for one's own, an administrator for everybody's, each time anew, wherever the session is; the daemon asks."""
    shown = machine.run("pkaction", "--verbose", "--action-id", APPROVE).stdout
    assert [line.split()[-1] for line in shown.splitlines() if "implicit" in line] == ["auth_self"] * 3
    shown = machine.run("pkaction", "--verbose", "--action-id", MANAGE).stdout
    assert [line.split()[-1] for line in shown.splitlines() if "implicit" in line] == ["auth_admin"] * 3
    assert "org.freedesktop.policykit.owner -> unix-user:attestd" in shown


def test_only_a_clear_yes_is_a_yes():
    """A kept authorization, a dismissed dialog, a challenge and a plain no are told apart, and none is a yes."""
    kept = {"polkit.temporary_authorization_id": "tmpauthz7"}
    assert verdict(authorized=True, challenge=False, details={}) is Answer.YES
    assert verdict(authorized=True, challenge=False, details=kept) is Answer.KEPT
    assert verdict(authorized=False, challenge=True, details={}) is Answer.NO_AGENT
    assert verdict(authorized=False, challenge=True, details={"polkit.dismissed": "true"}) is Answer.DISMISSED
    assert verdict(authorized=False, challenge=False, details={}) is Answer.NO
