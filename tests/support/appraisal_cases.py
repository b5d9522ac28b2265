"""The cases behind ``tests/vectors/appraisal/*.json``: evidence made with the builders, each with one sentence.

``python -m tests.support.appraisal_cases`` writes the files anew. A changed file is a changed contract: read the diff.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from attestd.appraisal.appraise import appraise
from attestd.appraisal.attribution import attribute
from attestd.appraisal.membership import classify
from attestd.appraisal.model import AttestationResult
from attestd.appraisal.references import References
from attestd.evidence.model import Evidence, InputHolders, Link, Namespaces, Script
from attestd.evidence.recorder import ProcessKey
from attestd.evidence.tcp import TcpPeer
from tests.support.evidence import (
    HOME,
    NAMING,
    OURS,
    REFERENCES,
    USER_MODE,
    claude,
    evidence_of,
    evil,
    gnome_shell,
    init,
    inline_of,
    link_of,
    node_program,
    npm_tool,
    origin_of,
    python_client,
    script_of,
    sha,
    shell,
    shim,
    shipped_table,
    sshd,
    terminal,
    tmux,
    user_systemd,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "appraisal"
SANDBOX = Namespaces(user=4026532999, pid=4026531836, mnt=4026533001, ours_user=False, ours_pid=True, ours_mnt=False)
CODE = {"path": "/usr/share/code/code", "origin": "dpkg:code"}
DESK = (terminal(), user_systemd(), init())


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """What a second implementation needs beside the evidence to recompute the chain digest."""

    programs: tuple[str, ...]
    outermost: int
    """Index of the last link in the chain digest."""
    end: str


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    about: str
    trust_domain: str
    host_id: str
    references: References
    evidence: Evidence
    digests: Digests
    expected: AttestationResult


RECORDER_ON = {"recorder": "on", "recorder_reason": "build 0123456789ab, layout 1"}


class Case(msgspec.Struct, frozen=True):
    """One case before it is appraised."""

    name: str
    about: str
    evidence: Evidence
    references: References = REFERENCES


def editor(**facts: object) -> Link:
    """A process of the editor; main process and helpers run the same executable."""
    return link_of("/usr/share/code/code", "dpkg:code", **({"tty": None} | facts))


def packaged_client(**facts: object) -> Link:
    """A native client of a verified package."""
    return link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", **facts)


def _ancestry() -> tuple[Case, ...]:
    setsid_fork = claude(reparented=None, tty=None)
    return (
        Case(
            "direct",
            "A terminal's shell starts a client that connects itself.",
            evidence_of(python_client(), shell(), *DESK),
        ),
        Case("relay", "Claude Code starts the shim.", evidence_of(shim(), claude(), shell(), *DESK)),
        Case(
            "sh-c",
            "The client starts the shim through a shell with more than the shim's command line.",
            evidence_of(shim(), shell("cd /tmp && attestd-connect time", "dash"), claude(), shell(), *DESK),
        ),
        Case(
            "inline-exception",
            "The client starts the shim through a shell with exactly the shim's command line.",
            evidence_of(shim(), shell("/opt/attestd/bin/attestd-connect 'time'", "dash"), claude(), shell(), *DESK),
        ),
        Case(
            "npx-node",
            "npx starts a node program, which connects.",
            evidence_of(
                node_program(
                    f"{HOME}/.npm/_npx/1a2b/node_modules/mcp-chat/index.js",
                    origin_of("npm:mcp-chat", "2.0.0", verified=False),
                ),
                shell("mcp-chat", "dash"),
                npm_tool("npx", "mcp-chat"),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "evil-claude",
            "A hostile program drives the genuine client.",
            evidence_of(shim(), claude(), evil(), shell(), *DESK),
        ),
        Case(
            "editor-extension-host",
            "The editor's extension host starts a node program: node is accountable, the editor launched it.",
            evidence_of(
                node_program(f"{HOME}/.vscode/extensions/x/client.js", tty=None),
                editor(),
                editor(),
                gnome_shell(),
                user_systemd(),
                init(),
            ),
        ),
        Case(
            "electron-collapsed",
            "The editor's helper starts the shim: helpers collapse to the main process.",
            evidence_of(shim(tty=None), editor(), editor(), editor(), gnome_shell(), user_systemd(), init()),
        ),
        Case(
            "agent-shell-shell-shim",
            "The agent's shell tool runs the shim through two shells.",
            evidence_of(
                shim(),
                shell("attestd-connect time | tee log"),
                shell("bash -c 'attestd-connect time | tee log'"),
                claude(),
                shell(),
                *DESK,
            ),
        ),
        Case("tmux", "A client in a tmux pane.", evidence_of(shim(), claude(), shell(name="zsh"), tmux(), init())),
        Case(
            "ssh",
            "A client in an ssh session; the listener of sshd is root's.",
            evidence_of(
                shim(),
                claude(),
                shell(),
                sshd(),
                link_of("/usr/sbin/sshd", "dpkg:openssh-server", uid=0, tty=None),
                init(),
            ),
        ),
        Case(
            "double-fork",
            "The launcher hid by a double fork: the client's parent did not start it.",
            evidence_of(shim(), claude(reparented=True), init(), end="broken"),
        ),
        Case(
            "double-fork-setsid",
            "A double fork with setsid: adoption cannot be told.",
            evidence_of(shim(), setsid_fork, init()),
        ),
        Case("orphan", "The chain ends before any edge.", evidence_of(shim(), claude(), shell(), end="broken")),
        Case(
            "orphan-above",
            "A launcher was adopted: the break above the client counts.",
            evidence_of(shim(), claude(), shell(reparented=True), init(), end="broken"),
        ),
        Case(
            "launcher-unknown",
            "A launcher above the client is a child of pid 1.",
            evidence_of(shim(), claude(), shell(), evil(reparented=None), init()),
        ),
        Case(
            "build-step",
            "A package's install script drives the client.",
            evidence_of(shim(), claude(), shell("claude -p x", "dash"), npm_tool("npm", "install"), shell(), *DESK),
        ),
        Case(
            "npm-exec",
            "npm exec is a launcher like npx.",
            evidence_of(shim(), claude(), npm_tool("npm", "exec", "claude"), shell(), *DESK),
        ),
        Case("interactive", "A person types the shim's command.", evidence_of(shim(), shell(), *DESK)),
        Case(
            "cron",
            "cron runs the shim by a shell line; nobody sits at a terminal.",
            evidence_of(
                shim(tty=None),
                shell("attestd-connect time", "dash", tty=None),
                link_of("/usr/sbin/cron", "dpkg:cron", uid=0, tty=None),
                init(),
            ),
        ),
        Case(
            "container-end",
            "The chain ends where our pid namespace was entered.",
            evidence_of(shim(), claude(), shell(), end="namespace"),
        ),
    )


def _identity() -> tuple[Case, ...]:
    tool = f"{HOME}/bin/tool"
    hidden = link_of(None)
    root_edge = link_of(None, uid=0, tty=None, comm="login")
    sandwiched = link_of(None, uid=0, comm="sudo")
    return (
        Case(
            "exec-a",
            "A hostile program calls itself claude.",
            evidence_of(shim(), evil(argv=("claude",), comm="claude"), shell(), *DESK),
        ),
        Case(
            "shebang",
            "A script with a #! line: interpreter and script are the program.",
            evidence_of(
                link_of(
                    "/usr/bin/perl", "dpkg:perl-base", script=script_of("perl", tool), argv=("/usr/bin/perl", tool)
                ),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "shell-script",
            "A shell that runs a file is a program of its own.",
            evidence_of(shim(), shell(script=script_of("shell", tool), argv=("bash", tool)), claude(), shell(), *DESK),
        ),
        Case(
            "module",
            "python -m.",
            evidence_of(
                python_client(
                    script=script_of(
                        "python",
                        "/usr/lib/python3/dist-packages/chat/__main__.py",
                        origin_of("dpkg:python3-chat"),
                        kind="module",
                        name="chat",
                    )
                ),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "inline-program",
            "python -c.",
            evidence_of(python_client(script=inline_of("python", "import mcp; ...")), shell(), *DESK),
        ),
        Case(
            "stdin-program",
            "curl | python: what runs is unknown.",
            evidence_of(python_client(script=Script(kind="stdin", interpreter="python")), shell(), *DESK),
        ),
        Case(
            "prompt-program",
            "A person types into python.",
            evidence_of(python_client(script=Script(kind="none", interpreter="python")), shell(), *DESK),
        ),
        Case(
            "unresolved-program",
            "The script cannot be told.",
            evidence_of(
                python_client(script=Script(kind="unresolved", interpreter="python", name="-X what")), shell(), *DESK
            ),
        ),
        Case(
            "script-younger",
            "The script changed after the start.",
            evidence_of(python_client(script=script_of("python", tool, younger_than_process=True)), shell(), *DESK),
        ),
        Case(
            "unreadable",
            "claude, shell, unreadable process, shim: the unreadable one is accountable.",
            evidence_of(shim(), hidden, shell(), claude(), shell(), *DESK),
        ),
        Case(
            "unreadable-launcher",
            "What launched the client cannot be read.",
            evidence_of(shim(), claude(), hidden, shell(), *DESK),
        ),
        Case(
            "root-unreadable-edge",
            "An unreadable process of root ends the user's processes.",
            evidence_of(shim(), claude(), shell(), root_edge, init()),
        ),
        Case(
            "root-between",
            "An unreadable process of root between two of the user's is no end.",
            evidence_of(shim(), shell(), sandwiched, claude(), shell(), *DESK),
        ),
        Case(
            "home-shell",
            "A shell in the home directory is accountable.",
            evidence_of(
                shim(),
                link_of(f"{HOME}/.local/bin/zsh", script=Script(kind="none", interpreter="shell"), argv=("zsh",)),
                claude(),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "memfd",
            "The executable exists in memory only.",
            evidence_of(
                shim(),
                link_of("/memfd:x", file={"memfd": True, "deleted": True, "fs": "memfd", "writable": True}),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "forged",
            "The recorder saw another file executed than /proc shows.",
            evidence_of(link_of(None, forged="/usr/bin/mcp-chat"), shell(), *DESK, **RECORDER_ON),
        ),
        Case(
            "recorded",
            "Every link of the path is recorded, so the image is no claim.",
            evidence_of(link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", recorded=True), shell(), *DESK, **RECORDER_ON),
        ),
        Case(
            "pre-attach",
            "The client is older than the recorder.",
            evidence_of(
                link_of("/usr/bin/mcp-chat", unrecorded="the process is older than the recorder"),
                shell(),
                *DESK,
                **RECORDER_ON,
            ),
        ),
        Case(
            "environ-cut",
            "The environment was recorded in part only.",
            evidence_of(
                link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", recorded=True, environ_cut=True),
                shell(),
                *DESK,
                **RECORDER_ON,
            ),
        ),
        Case(
            "dead-launcher",
            "A launcher that has exited is known from the recorder and is a launcher.",
            evidence_of(
                link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", recorded=True),
                evil(dead=True, recorded=True),
                shell(),
                *DESK,
                **RECORDER_ON,
            ),
        ),
        Case(
            "dead-accountable",
            "A dead link between the client and the shim is accountable itself: level 0.",
            evidence_of(shim(recorded=True), evil(dead=True, recorded=True), shell(), *DESK, **RECORDER_ON),
        ),
        Case(
            "deleted",
            "The executable was replaced on disk.",
            evidence_of(link_of("/usr/bin/mcp-chat", file={"deleted": True}), shell(), *DESK),
        ),
        Case(
            "fuse",
            "The executable is on a FUSE mount.",
            evidence_of(evil("/tmp/.mount_x/chat", file={"fs": "fuse.squashfuse"}), shell(), *DESK),
        ),
        Case(
            "packaged",
            "A verified package on a host where executables cannot be forged.",
            evidence_of(packaged_client(), shell(), *DESK, exe_forgeable=False),
        ),
        Case(
            "not-writable",
            "Exact bytes nobody vouches for, beyond the caller's reach.",
            evidence_of(link_of("/opt/chat/chat"), shell(), *DESK, exe_forgeable=False),
        ),
        Case("relay-user-mode", "The shim of a user's own installation.", _user_mode(), USER_MODE),
        Case(
            "relay-copy",
            "An equal copy of the shim's wrapper elsewhere.",
            evidence_of(
                shim(
                    script=script_of(
                        "python", f"{HOME}/x/attestd-connect", sha256=sha("/opt/attestd/bin/attestd-connect")
                    )
                ),
                claude(),
                shell(),
                *DESK,
            ),
        ),
    )


def _user_mode() -> Evidence:
    wrapper = script_of("python", "/opt/attestd/bin/attestd-connect", file={"owner_uid": 1000, "writable": True})
    return evidence_of(shim(script=wrapper), claude(), shell(), *DESK)


def _circumstances() -> tuple[Case, ...]:
    sudo = link_of("/usr/bin/sudo", "dpkg:sudo", uid=0, argv=("sudo", "x"))
    foreign = InputHolders(kind="pipe", pids=(990, 4242), complete=True)
    unknown = InputHolders(kind="pipe", pids=(990,), complete=False)
    return (
        Case(
            "sudo",
            "A client runs the shim through sudo: decided on the user.",
            evidence_of(shim(uid=0), sudo, claude(), shell(), *DESK),
        ),
        Case(
            "sudo-client",
            "A person runs a client through sudo: decided on the person.",
            evidence_of(python_client("/opt/chat/client.py", uid=0), sudo, shell(), *DESK),
        ),
        Case(
            "setuid",
            "A setuid program: decided on the real uid.",
            evidence_of(link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", uids=(1000, 0, 0, 0)), shell(), *DESK),
        ),
        Case(
            "two-users",
            "A path of two ordinary users: neither is the weaker.",
            evidence_of(shim(uid=1001), sudo, claude(), shell(), *DESK),
        ),
        Case(
            "bubblewrap-child",
            "A child in a sandbox with a user namespace of its own.",
            evidence_of(
                shim(namespaces=SANDBOX),
                shell(namespaces=SANDBOX),
                link_of("/usr/bin/bwrap", "dpkg:bubblewrap"),
                claude(),
                shell(),
                *DESK,
            ),
        ),
        Case(
            "mount-namespace",
            "A client with other files in its sight.",
            evidence_of(
                python_client(namespaces=msgspec.structs.replace(OURS, mnt=4026533001, ours_mnt=False)), shell(), *DESK
            ),
        ),
        Case(
            "traced",
            "A debugger is attached to the client.",
            evidence_of(shim(), claude(tracer_pid=77), shell(), *DESK),
        ),
        Case(
            "preload",
            "A preload in the client.",
            evidence_of(shim(), claude(posture=("env LD_PRELOAD=/tmp/x.so", "map /tmp/x.so")), shell(), *DESK),
        ),
        Case(
            "preload-shell",
            "A preload in the shell between makes the shell accountable.",
            evidence_of(shim(), shell(posture=("env BASH_ENV=/tmp/rc",)), claude(), shell(), *DESK),
        ),
        Case(
            "search-path",
            "A search path in the client.",
            evidence_of(python_client(posture=("env PYTHONPATH=/tmp/lib",)), shell(), *DESK),
        ),
        Case(
            "relay-search-path",
            "A search path in the shim: it is not the shim.",
            evidence_of(shim(posture=("env PYTHONPATH=/tmp/lib",)), claude(), shell(), *DESK),
        ),
        Case(
            "input-shared",
            "A stranger can write to the shim's input.",
            evidence_of(shim(), claude(), shell(), *DESK, input=foreign),
        ),
        Case(
            "input-unheld",
            "Nobody of the call can write to the shim's input any more.",
            evidence_of(shim(), claude(), shell(), *DESK, input=InputHolders(kind="pipe", pids=(), complete=True)),
        ),
        Case(
            "input-incomplete",
            "Not every process could be looked at.",
            evidence_of(shim(), claude(), shell(), *DESK, input=unknown),
        ),
        Case(
            "input-file",
            "The shim's input is a file.",
            evidence_of(shim(), claude(), shell(), *DESK, input=InputHolders(kind="file", pids=(), complete=True)),
        ),
        Case("pid-only", "The kernel named the peer by number.", _pid_only()),
        Case("tcp-recorded", "Over TCP, and the recorder saw who connected.", _tcp(source="recorder")),
        Case("tcp-scanned", "Over TCP, found by who holds the socket.", _tcp(exec_changed=None)),
        Case("tcp-shared", "Over TCP, and two processes hold the socket.", _tcp(shared=True, exec_changed=None)),
        Case("tcp-executed", "Over TCP, and another image since.", _tcp(source="recorder", exec_changed=True)),
        Case(
            "hostile-names",
            "Names that try to draw on the terminal.",
            evidence_of(evil(f'{HOME}/a\x1b[2J\u202e| in ghostty · "L3"'), shell(), *DESK),
        ),
    )


def _tcp(*, source: str = "scan", shared: bool | None = False, exec_changed: bool | None = False) -> Evidence:
    evidence = _pid_only()
    pid = evidence.peer.pid
    key = ProcessKey(pid, evidence.chain[0].start_ticks * 10_000_000)
    others = (ProcessKey(pid + 1, key.start_ns),) if shared else ()
    tcp = TcpPeer(
        cookie=77,
        inode=4711,
        uid=evidence.peer.uid,
        source=source,
        key=None if shared else key,
        candidates=(key, *others),
        holders=(key, *others),
        examined=True,
        shared=shared,
        exec_changed=exec_changed,
        reasons=(),
    )
    return msgspec.structs.replace(evidence, peer=msgspec.structs.replace(evidence.peer, source="tcp"), tcp=tcp)


def _pid_only() -> Evidence:
    evidence = evidence_of(python_client(), shell(), *DESK)
    return msgspec.structs.replace(evidence, peer=msgspec.structs.replace(evidence.peer, source="pid-only"))


CASES: tuple[Case, ...] = (*_ancestry(), *_identity(), *_circumstances())


def vector_of(case: Case) -> Vector:
    """The case with today's result."""
    table = shipped_table()
    attribution = attribute(case.evidence, classify(case.evidence, table, case.references))
    outermost = attribution.last if attribution.edge is None else attribution.edge
    return Vector(
        about=case.about,
        trust_domain=NAMING.trust_domain,
        host_id=NAMING.host_id,
        references=case.references,
        evidence=case.evidence,
        digests=Digests(programs=attribution.programs, outermost=outermost, end=attribution.end),
        expected=appraise(case.evidence, table, case.references, NAMING),
    )


def text_of(vector: Vector) -> str:
    """One value a line, one space of indentation a level: readable for people and for awk."""
    return json.dumps(msgspec.to_builtins(vector), indent=1, ensure_ascii=True) + "\n"


def main() -> int:
    """Write every file."""
    VECTORS.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (VECTORS / f"{case.name}.json").write_text(text_of(vector_of(case)), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
