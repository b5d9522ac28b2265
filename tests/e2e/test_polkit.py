"""Approving on a system installation: real users, real passwords, polkit's own agent on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.person import at_a_terminal
from tests.support.system_instance import ALICE, BOB, CAROL, PASSWORDS, SystemInstance, system

pytestmark = [pytest.mark.root, pytest.mark.linux("polkit")]


@pytest.fixture(scope="module", name="machine")
def _machine() -> Iterator[SystemInstance]:
    with system(settings="[servers]\nusers_may_add = true\n", polkit=True) as instance:
        yield instance


def waiting(machine: SystemInstance, uid: int) -> tuple[str, str]:
    """The code of a client of this user that was just refused, and what else approving it needs."""
    with machine.client(uid) as client:
        code = str(client.initialize()["error"]["data"]["code"])
    entry = next(each for each in machine.ctl("pending") if each["code"] == code)
    launchers = [f"--launched-by {each['program'] or 'unreadable'}" for each in entry["caller"]["launchers"]]
    return code, f"attestctl approve {code} {' '.join(launchers)} --all-tools --for 8h --yes"


def decided(machine: SystemInstance, method: str) -> dict[str, Any]:
    """The last record of this method, as root sees it."""
    return machine.ctl("audit", "query", "--kind", "admin", "--method", method)[-1]


def test_the_password_approves_and_is_asked_for_each_time(machine: SystemInstance):
    """The person's own password makes the grant, as the record says; the next one asks again: nothing was kept."""
    code, command = waiting(machine, ALICE)
    with at_a_terminal(machine, ALICE) as alice:
        alice.begin(command)
        shown = alice.sees("Password:")
        assert f"approve {code}" in shown
        assert "dev.attestd.approve" in shown
        alice.type(PASSWORDS[ALICE])
        status, shown = alice.ended()
        assert (status, "granted g-" in shown) == (0, True), shown
        grant = machine.ctl("grants", "list", uid=ALICE)[0]
        assert (grant["how"], grant["origin"]) == ("polkit", code)
        assert decided(machine, "grant.approve")["detail"]["how"] == "polkit"
        alice.begin(f"attestctl grants revoke {grant['id']}")
        alice.sees("Password:")
        alice.type(PASSWORDS[ALICE])
        assert alice.ended()[0] == 0
    assert machine.ctl("grants", "list", uid=ALICE) == []


@pytest.mark.parametrize(("answer", "why"), [("wrong", "the password was wrong"), ("C-c", "")])
def test_no_password_no_grant(machine: SystemInstance, answer: str, why: str):
    """A wrong password and an interrupted question grant nothing, and the code can still be used."""
    code, command = waiting(machine, ALICE)
    with at_a_terminal(machine, ALICE) as alice:
        alice.begin(command)
        alice.sees("Password:")
        if answer == "C-c":
            alice.press(answer)
        else:
            alice.type(answer)
        status, shown = alice.ended()
        assert status != 0
        assert why in shown
    assert machine.ctl("grants", "list") == []
    assert code in {each["code"] for each in machine.ctl("pending", uid=ALICE)}
    if why:
        assert decided(machine, "Approve")["cause"] == "not_approver"


def test_an_agent_is_refused_before_anybody_is_asked(machine: SystemInstance):
    """A program between the shell and attestctl is refused and recorded, whatever password it could type."""
    code, command = waiting(machine, ALICE)
    script = machine.script("agent.py", "import subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:]).returncode)\n")
    with at_a_terminal(machine, ALICE) as alice:
        alice.begin(f"/run/code/venv/bin/python3 {script} {command}")
        status, shown = alice.ended()
    assert status == 4
    assert "Password" not in shown
    assert re.search(r"agent\.py .pid \d+. is among its ancestors", " ".join(shown.split())), shown
    refusal = decided(machine, "Approve")
    assert (refusal["id"], refusal["cause"], refusal["uid"]) == (code, "not_approver", ALICE)
    assert "agent.py" in refusal["detail"]["why"]


def test_who_may_approve_may_not_manage(machine: SystemInstance):
    """Servers and other users' things ask for an administrator's password, and a user's own is not one."""
    with at_a_terminal(machine, ALICE) as alice:
        alice.begin("attestctl servers add x --transport unix --path /run/x.sock")
        shown = alice.sees("Password:")
        assert "dev.attestd.manage" in shown
        assert "Authenticating as: alice" not in shown
        alice.type(PASSWORDS[ALICE])
        assert alice.ended()[0] == 4
        alice.begin("attestctl --all-users ps")
        assert "dev.attestd.manage" in alice.sees("Password:")
        alice.press("C-c")
        assert alice.ended()[0] != 0
    assert [each["name"] for each in machine.ctl("servers", "list")] == ["echo"]


def test_an_administrator_manages_everybodys(machine: SystemInstance):
    """With an administrator's password everybody's pending requests are seen, and another user's is denied."""
    code, _ = waiting(machine, BOB)
    with at_a_terminal(machine, CAROL) as carol:
        carol.begin("attestctl pending")
        assert code not in carol.ended()[1]
        carol.begin("attestctl --all-users pending")
        carol.sees("Password:")
        carol.type(PASSWORDS[CAROL])
        status, shown = carol.ended()
        assert (status, code in shown) == (0, True), shown
        carol.begin(f"attestctl --all-users deny {code}")
        carol.sees("Password:")
        carol.type(PASSWORDS[CAROL])
        assert carol.ended()[0] == 0
    record = decided(machine, "deny")
    assert (record["id"], record["uid"], record["detail"]["how"]) == (code, CAROL, "polkit")


def test_a_user_adds_a_server_of_its_own(machine: SystemInstance):
    """With her own password alice registers what she runs, uses it by its name, and takes it out; bob sees nothing."""
    with machine.serving("mine", uid=ALICE) as path, at_a_terminal(machine, ALICE) as alice:
        alice.begin(f"attestctl servers add mine --own --transport unix --path {path}")
        assert "dev.attestd.approve" in alice.sees("Password:")
        alice.type(PASSWORDS[ALICE])
        assert alice.ended()[0] == 0
        assert machine.ctl("servers", "show", "mine", uid=ALICE)[0]["owner"] == ALICE
        assert [each["name"] for each in machine.ctl("servers", "list", uid=BOB)] == ["echo"]
        shim = ("/run/code/venv/bin/attestd-connect", "mine", "--system")
        machine.grant(ALICE, f"mine@{ALICE}", argv=shim)
        with machine.client(ALICE, argv=shim) as client:
            assert "result" in client.initialize()
            assert "result" in client.call(value=1)
        alice.begin("attestctl servers remove mine")
        assert "dev.attestd.approve" in alice.sees("Password:")
        alice.type(PASSWORDS[ALICE])
        assert alice.ended()[0] == 0
    assert [each["name"] for each in machine.ctl("servers", "list")] == ["echo"]


def test_without_polkit_only_root_decides(machine: SystemInstance):
    """With polkit gone a user is refused, told what to do and recorded; root approves; doctor says so. The last one."""
    _, command = waiting(machine, ALICE)
    machine.polkit.kill()
    machine.polkit.wait()
    machine.bus.kill()
    machine.bus.wait()
    machine.path("/run/dbus/system_bus_socket").unlink()
    with at_a_terminal(machine, ALICE) as alice:
        alice.begin(command)
        status, shown = alice.ended()
    assert status == 4
    assert "cannot ask polkit: the system bus cannot be reached" in shown
    assert decided(machine, "Approve")["cause"] == "not_approver"
    checks = {each["name"]: each for each in machine.ctl("doctor", uid=ALICE, code=1)}
    assert (checks["polkit"]["status"], checks["polkit"]["cost"]) == ("fail", "only root can approve")
    assert machine.grant(ALICE)["how"] == "root"
