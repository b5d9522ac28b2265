"""The room as the daemon sees it, from a connection to a level."""

from __future__ import annotations

import stat
import uuid

import pytest

from attestd.appraisal.model import LinkClass
from attestd.appraisal.references import References, RelayReference
from attestd.errors import Cause, EvidenceError
from attestd.evidence.protocol import Kernel
from attestd.kernel.darwin.kernel import boot_id, host_id
from attestd.mediation import Appraiser, Attested, attest
from tests.fakes.libsystem import WEAKENED, Proc
from tests.support.evidence import NAMING, shipped_table
from tests.support.macs import TEAM, TTY, Scene


def attested(scene: Scene, process: Proc, references: References | None = None) -> Attested:
    """The whole of steps 0 to 2; the watch is closed."""
    kernel = scene.kernel()
    ours, theirs = scene.mac.connect(process.pid)
    with ours, theirs:
        appraiser = Appraiser(table=shipped_table(), references=references or References(), naming=NAMING)
        found = attest(kernel, ours.fileno(), kernel.peer(ours.fileno()), appraiser)
        assert found.watch.verify(process.pid) is None
        found.watch.close()
    return found


def test_it_is_a_kernel(scene: Scene):
    """The implementation has the shape of the protocol."""
    door: Kernel = scene.kernel()
    assert {feature.name for feature in door.features()} >= {"peer_token", "unique_ids"}


def test_names_of_boot_and_host(scene: Scene):
    """A UUID, and a hash that does not show what it is made of."""
    assert str(uuid.UUID(boot_id(scene.system))) == boot_id(scene.system)
    found = host_id(scene.mac)
    assert found is not None
    assert (len(found), found) != (32, bytes(range(16)).hex())


@pytest.mark.parametrize(("status", "level"), [(None, 4), (WEAKENED, 3)])
def test_a_signed_client(scene: Scene, status: int | None, level: int):
    """A Developer ID program reaches the level of its runtime, wherever its file lies."""
    agent = scene.mac.spawn(scene.zsh.pid, scene.signed("agent", **({} if status is None else {"status": status})))
    found = attested(scene, agent)
    # Apple's shell and login are members by path, and the test's files are elsewhere: they are launchers here.
    assert found.result.accountable == 0
    assert [reason.code for reason in found.result.reasons if reason.cap != 1] == [
        "runtime-weakened" if level == 3 else "signed"
    ]
    assert found.result.package == f"codesign:{TEAM}/com.example.agent@"
    assert found.result.instance.split("/")[1] == str(agent.unique_id)


def test_an_ad_hoc_client(scene: Scene):
    """Nobody's signature leaves exact bytes in the caller's reach."""
    found = attested(scene, scene.mac.spawn(scene.zsh.pid, scene.code("agent")))
    assert found.result.level == 1
    assert {"origin-unverified", "exe-writable"} >= {
        reason.code for reason in found.result.reasons if reason.code.startswith(("origin", "exe"))
    }


def test_our_shim_is_a_relay(scene: Scene):
    """With its reference values, on a pipe that its client holds, the client is accountable."""
    read, write = scene.mac.pipe()
    client = scene.agent(fds={4: write})
    script = scene.directory / "attestd-connect"
    script.write_text("#!/usr/bin/env python3\n")
    code = scene.code("python3", "python")
    shim = scene.mac.spawn(
        client.pid, code, "python3", str(script), "time", fds={0: read}, start_us=4_000_000_000_000_000
    )
    import hashlib

    reference = RelayReference(
        exe_sha256=hashlib.sha256((scene.directory / "python3").read_bytes()).hexdigest(),
        script_sha256=hashlib.sha256(script.read_bytes()).hexdigest(),
        script_path=str(script),
    )
    found = attested(scene, shim, References(relays=(reference,), user_mode=True))
    assert found.result.classes[0] is LinkClass.RELAY
    assert found.result.accountable == 1
    assert found.evidence.input is not None
    assert found.evidence.input.pids == (client.pid,)
    assert found.evidence.proven_upto == -1


def test_a_person_at_a_shell(scene: Scene):
    """A terminal's device at standard input makes the shell a prompt."""
    scene.zsh.fds = {0: ("vnode", (stat.S_IFCHR | 0o620, TTY))}
    evidence = attested(scene, scene.zsh).evidence
    assert evidence.chain[0].script is not None
    assert evidence.chain[0].script.kind == "none"
    assert evidence.chain[0].tty == "ttys003"


def test_an_exec_between_accept_and_attestation(scene: Scene):
    """The image that was accepted is the one that is attested, or none."""
    kernel, agent = scene.kernel(), scene.agent()
    ours, theirs = scene.mac.connect(agent.pid)
    with ours, theirs:
        peer = kernel.peer(ours.fileno())
        scene.mac.execute(agent.pid, scene.signed("claude"))
        with pytest.raises(EvidenceError) as refused:
            kernel.collect(ours.fileno(), peer)
    assert refused.value.cause is Cause.INCONSISTENT


def test_a_reused_pid_between_accept_and_attestation(scene: Scene):
    """A new process with the pid of the connector is not the connector."""
    kernel, agent = scene.kernel(), scene.agent()
    ours, theirs = scene.mac.connect(agent.pid)
    with ours, theirs:
        peer = kernel.peer(ours.fileno())
        scene.mac.exit(agent.pid)
        scene.mac.spawn(scene.zsh.pid, scene.signed("claude"), pid=agent.pid)
        with pytest.raises(EvidenceError) as refused:
            kernel.collect(ours.fileno(), peer)
    assert refused.value.cause is Cause.INCONSISTENT
