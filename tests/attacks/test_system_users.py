"""Users of one system installation against each other: what is another's does not exist, and nobody fills it up."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Client, cause
from tests.support.system_instance import ALICE, BOB, PYTHON, SCRIPTS, SERVICE, SystemInstance, system

pytestmark = [pytest.mark.root, pytest.mark.linux("users in a user namespace, and the launcher of system mode")]
SETTINGS = """
[servers]
users_may_add = true
[approval]
approvers = []
[limits]
connections_per_uid = 64
connections_per_minute = 300
refusals_per_minute = 5
"""


YES = ("--launched-by", "unreadable", "--all-tools", "--yes")


@pytest.fixture(scope="module", name="machine")
def _machine() -> Iterator[SystemInstance]:
    with system(settings=SETTINGS) as instance:
        yield instance


@pytest.fixture(scope="module", name="alices")
def _alices(machine: SystemInstance) -> Iterator[dict[str, str]]:
    """What alice has: a grant, an open session with a call, a waiting request, and a server of her own."""
    grant = machine.grant(ALICE)
    other = machine.script("other.py", OTHER)
    with machine.client(ALICE) as client:
        client.initialize()
        assert "result" in client.call(secret="hers")
        with machine.client(ALICE, argv=(PYTHON, other, "/run/attestd/mcp/echo.sock")) as refused:
            code = str(refused.initialize()["error"]["data"]["code"])
        decision = machine.ctl("audit", "query", "--method", "tools/call", "--kind", "decision", uid=ALICE)[-1]["id"]
        session = machine.ctl("ps", uid=ALICE)[0]
        own = own_server(machine, ALICE, "notes", machine.serve("hers", uid=ALICE, mark="hers"))
        found = {"grant": grant["id"], "code": code, "decision": decision, "own": own}
        yield {**found, "session": session["session"], "pid": str(session["pid"])}


OTHER = '''\
"""Another program than the talker."""
import runpy, sys
sys.argv[0] = "talk.py"
runpy.run_path(sys.argv.pop(0) if False else __file__.replace("other.py", "talk.py"), run_name="__main__")
'''


def own_server(machine: SystemInstance, uid: int, name: str, path: str) -> str:
    """A server as this user's own command registers it; its whole name."""
    directory = machine.path(f"/var/lib/attestd/servers/{uid}")
    for made in ("/var/lib/attestd/servers", f"/var/lib/attestd/servers/{uid}"):
        machine.run("install", "-d", "-o", str(SERVICE), "-g", str(SERVICE), "-m", "0700", made)
    text = f'[server]\nname = "{name}"\ntransport = "unix"\nsocket = "{path}"\n'
    (directory / f"{name}.toml").write_text(text, encoding="utf-8")
    machine.run("chown", f"{SERVICE}:{SERVICE}", f"/var/lib/attestd/servers/{uid}/{name}.toml")
    machine.ctl("reload")
    return f"{name}@{uid}"


def told(machine: SystemInstance, uid: int, *words: str) -> str:
    """Everything that a command says to this user, whether it works or not."""
    done = machine.run(SCRIPTS / "attestctl", *words, "--json", uid=uid)
    return done.stdout + done.stderr


@pytest.mark.attack("U1")
def test_nothing_of_another_user_is_told(machine: SystemInstance, alices: dict[str, str]):
    """Sessions, requests, grants, servers, status, doctor and log of bob say nothing of alice's; hers and root's do."""
    looks = [("ps",), ("pending",), ("grants", "list", "--all"), ("servers", "list"), ("status",), ("doctor",)]
    looks += [("audit", "tail", "--lines", "1000"), ("audit", "query")]
    seen = {words: told(machine, BOB, *words) for words in looks}
    hers = [alices[key] for key in ("grant", "code", "decision", "own", "session")]
    assert {words: [each for each in hers if each in text] for words, text in seen.items()} == {w: [] for w in looks}
    assert str(ALICE) not in "".join(seen.values())
    status = json.loads(seen[("status",)])
    assert (status["sessions"], status["audit"]) == (0, {"records": 0, "head": ""})
    for each in (ALICE, 0):
        everything = "".join(told(machine, each, *words) for words in looks)
        assert [one for one in hers if one not in everything] == []


@pytest.mark.attack("U1")
@pytest.mark.parametrize(
    ("words", "key", "never"),
    [
        (("grants", "show"), "grant", "g-000000000000"),
        (("explain",), "decision", "bbbbbbbbbbbb.9"),
        (("servers", "show"), "own", f"nothing@{ALICE}"),
        (("why", "--server"), "own", f"nothing@{ALICE}"),
        (("inspect", "--pid"), "pid", "4194303"),
        (("why", "--server", "echo", "--pid"), "pid", "4194303"),
    ],
)
def test_what_is_anothers_is_as_what_never_was(
    machine: SystemInstance, alices: dict[str, str], words: tuple[str, ...], key: str, never: str
):
    """The same exit code and the same words, but for the name that was asked for."""
    hers = machine.run(SCRIPTS / "attestctl", *words, alices[key], uid=BOB)
    none = machine.run(SCRIPTS / "attestctl", *words, never, uid=BOB)
    assert hers.returncode == none.returncode == 9
    assert hers.stdout == none.stdout == ""
    assert hers.stderr.replace(alices[key], "X") == none.stderr.replace(never, "X")
    assert machine.run(SCRIPTS / "attestctl", *words, alices[key], uid=ALICE).returncode == 0


@pytest.mark.attack("U2")
def test_codes_are_useless_to_others(machine: SystemInstance, alices: dict[str, str]):
    """Bob is refused with alice's code as with any, before and whatever he may approve; she still has it."""
    for words in (("approve", alices["code"], *YES), ("deny", alices["code"])):
        assert machine.refused(*words, uid=BOB, code=4)
    guess = machine.refused("approve", "AAAA-AAAA", *YES, uid=BOB, code=4)
    real = machine.refused("approve", alices["code"], *YES, uid=BOB, code=4)
    assert real.replace(alices["code"], "X") == guess.replace("AAAA-AAAA", "X")
    assert alices["code"] in {each["code"] for each in machine.ctl("pending", uid=ALICE)}
    assert machine.ctl("audit", "query", "--cause", "bad_code", "--kind", "admin")[-1]["uid"] == BOB


@pytest.mark.attack("U3")
def test_another_users_own_server_is_not_there(machine: SystemInstance, alices: dict[str, str]):
    """Its socket says nothing to bob and that is recorded; his shim does not find it; the directory is not listed."""
    path = f"/run/attestd/mcp/{ALICE}/notes.sock"
    with machine.client(ALICE, f"{ALICE}/notes") as mine:
        assert cause(mine.initialize()) == "no_grant"
    with machine.client(BOB, f"{ALICE}/notes") as his:
        his.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
        assert his.process.stdout is not None
        assert his.process.stdout.read() == b""
    refusal = machine.ctl("audit", "query", "--server", alices["own"], "--cause", "not_found")[-1]
    assert (refusal["uid"], refusal["verdict"]) == (BOB, "deny")
    shim = machine.run(SCRIPTS / "attestd-connect", "notes", "--system", uid=BOB, stdin="")
    assert (shim.returncode, "no such socket" in shim.stderr) == (5, True)
    assert machine.run("ls", "/run/attestd/mcp", uid=BOB).returncode != 0
    assert machine.run("test", "-S", path, uid=ALICE).returncode == 0


@pytest.mark.attack("U3")
def test_a_users_server_must_be_that_users(machine: SystemInstance, alices: dict[str, str]):
    """What alice registered for herself is served by alice or not at all: bob's listener in its place is refused."""
    del alices
    with machine.serving("trap", uid=BOB) as path:
        own_server(machine, ALICE, "trap", path)
        machine.grant(ALICE, f"{ALICE}/trap")
        with machine.client(ALICE, f"{ALICE}/trap") as client:
            assert cause(client.initialize()) == "server_untrusted"


@pytest.mark.attack("U3")
def test_a_name_that_is_everybodys_is_nobodys_own(machine: SystemInstance):
    """A server of bob's that is called echo is not served, and he is told; everybody's echo stays what it is."""
    before = machine.ctl("servers", "show", "echo")[0]
    own_server(machine, BOB, "echo", "/run/x")
    assert [each["name"] for each in machine.ctl("servers", "list", uid=BOB)] == ["echo"]
    assert machine.ctl("servers", "show", "echo", uid=BOB)[0]["path"] == before["path"]
    assert "registered for everybody" in machine.ctl("status", uid=BOB)[0]["errors"][-1]["message"]
    assert "registered for everybody" not in json.dumps(machine.ctl("status", uid=ALICE))


ASKS = '''\
"""Be refused under as many names as asked for. {mark}"""
import os, subprocess, sys, tempfile, time

with open(sys.argv[2]) as file:
    text = file.read()
with tempfile.TemporaryDirectory() as directory:
    paths = [os.path.join(directory, f"c{number}.py") for number in range(int(sys.argv[3]))]
    for path in paths:
        with open(path, "w") as file:
            file.write(text + f"# {path}")
    time.sleep(0.5)  # a script must be older than the process that runs it
    for path in paths:
        line = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\\n'
        subprocess.run([sys.executable, path, sys.argv[1]], input=line.encode(), capture_output=True)
'''


@pytest.mark.attack("U4")
def test_who_fills_the_list_pushes_nobody_off_it(machine: SystemInstance, alices: dict[str, str]):
    """However many programs of bob wait, his oldest go; alice's request keeps its code."""
    script = machine.script("asks.py", ASKS)
    talker = machine.root / "talk.py"
    done = machine.run(PYTHON, script, "/run/attestd/mcp/echo.sock", talker, "80", uid=BOB, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(machine.ctl("pending", uid=BOB)) == 64
    assert alices["code"] in {each["code"] for each in machine.ctl("pending", uid=ALICE)}


@pytest.mark.attack("C1")
def test_nobody_but_root_decides_without_a_password(machine: SystemInstance, alices: dict[str, str]):
    """Alice's own attestctl outside of a terminal cannot approve, revoke, add or reload; each is recorded as hers."""
    asked = [
        ("approve", alices["code"], *YES),
        ("grants", "revoke", alices["grant"]),
        ("servers", "remove", "echo"),
        ("servers", "add", "x", "--transport", "unix", "--path", "/run/x", "--own"),
        ("reload",),
    ]
    for words in asked:
        assert "cannot take this from" in machine.refused(*words, uid=ALICE, code=4)
    refusals = machine.ctl("audit", "query", "--cause", "not_approver", "--kind", "admin", uid=ALICE)
    assert {"Approve", "RevokeGrants", "RemoveServer", "AddServer", "Reload"} <= {each["method"] for each in refusals}
    assert machine.ctl("grants", "show", alices["grant"], uid=ALICE)


@pytest.mark.attack("C2")
def test_guessing_codes_locks_the_guesser_out_and_nobody_else(machine: SystemInstance, alices: dict[str, str]):
    """After wrong codes bob waits, also with a right one; alice looks at hers meanwhile."""
    for number in range(11):
        said = machine.refused("approve", f"ZZZZ-ZZZ{'ABCDEFGHJKM'[number]}", *YES, uid=BOB)
    assert "wrong codes in a row" in said
    assert machine.refused("approve", alices["code"], *YES, uid=ALICE, code=4).startswith("error: cannot")
    assert alices["code"] in {each["code"] for each in machine.ctl("pending", uid=ALICE)}


@pytest.mark.attack("C3")
def test_users_cannot_reach_what_is_kept(machine: SystemInstance):
    """Grants, log, registry, configuration and sockets: a user reads none of the state, and changes nothing."""
    places = ["/var/lib/attestd", "/var/lib/attestd/grants.db", "/var/lib/attestd/audit", "/var/lib/attestd/servers"]
    for path in places:
        assert machine.run("test", "-e", f"{path}/.", uid=ALICE).returncode != 0 or path == "/var/lib/attestd"
        assert machine.run("test", "-r", path, uid=ALICE).returncode != 0
    for path in ("/etc/attestd", "/etc/attestd/servers.d", "/run/attestd", "/run/attestd/mcp", "/var/lib/attestd"):
        assert machine.run("touch", f"{path}/x", uid=ALICE).returncode != 0
    for path in ("/run/attestd/control.sock", "/run/attestd/mcp/echo.sock"):
        assert machine.run("rm", "-f", path, uid=ALICE).returncode != 0
    assert machine.run("touch", "/etc/attestd/x", uid=SERVICE).returncode != 0, "nor does the daemon change its rules"


@pytest.mark.attack("I22")
def test_what_runs_as_another_is_decided_as_the_weaker(machine: SystemInstance, alices: dict[str, str]):
    """Alice's granted client, run by root as bob, holds no grant of hers: bob decides."""
    del alices
    with machine.client(BOB) as client:
        assert cause(client.initialize()) == "no_grant"
    seen = machine.ctl("audit", "query", "--kind", "decision", "--cause", "no_grant", uid=BOB)[-1]
    assert seen["uid"] == BOB


@pytest.mark.attack("I23")
def test_a_fake_service_is_not_believed(machine: SystemInstance):
    """A socket of bob's that claims to be the service is refused by alice's shim and attestctl before a word is said."""
    with machine.serving("fake", uid=BOB) as path:
        shim = machine.run(SCRIPTS / "attestd-connect", "echo", "--system", "--socket", path, uid=ALICE, stdin="{}\n")
        ctl = machine.run(SCRIPTS / "attestctl", "--socket", path, "status", uid=ALICE)
    assert (shim.returncode, "belongs to uid" in shim.stderr) == (5, True)
    assert (ctl.returncode, "got a socket of uid" in ctl.stderr) == (5, True)
    true = machine.run(SCRIPTS / "attestd-connect", "echo", "--system", uid=ALICE, stdin="")
    assert true.returncode == 0


FLOOD = '''\
"""Connect as often as possible, hold what is held, and go on until told to stop. {mark}"""
import os, socket, sys, threading

held = []
stop = threading.Event()

def connect():
    while not stop.is_set():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try:
            s.connect(sys.argv[1])
            s.send(b"{" * 10)
        except OSError:
            continue
        held.append(s)
        if len(held) > 900:
            held.pop(0).close()

for _ in range(4):
    threading.Thread(target=connect, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
'''


@contextlib.contextmanager
def flooding(machine: SystemInstance, uid: int, path: str) -> Iterator[None]:
    """This user connects to a socket as fast as it can, and reads nothing."""
    script = machine.script("flood.py", FLOOD)
    process = machine.start(PYTHON, script, path, uid=uid, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        machine.end(process)


def answers(client: Client) -> Any:
    """An initialised client's call."""
    assert "result" in client.initialize()
    return client.call(value=1)


@pytest.mark.attack("U4")
def test_who_fills_the_accept_queue_fills_it_for_itself(machine: SystemInstance, alices: dict[str, str]):
    """While bob floods the sockets alice connects and calls, root looks; bob's refusals are counted, not all recorded."""
    del alices
    before = machine.ctl("status")[0]["audit"]["records"]
    with flooding(machine, BOB, "/run/attestd/mcp/echo.sock"), flooding(machine, BOB, "/run/attestd/control.sock"):
        for _ in range(3):
            with machine.client(ALICE) as client:
                assert "result" in answers(client)
        assert machine.ctl("ps", uid=ALICE)
        assert machine.ctl("status")
    machine.ctl("status")
    refused = machine.ctl("audit", "query", "--cause", "limit_connections")
    assert {each["uid"] for each in refused} == {BOB}
    assert len(refused) <= 3 * 6, "each minute has five single records and one that counts the others"
    assert machine.ctl("status")[0]["audit"]["records"] > before
