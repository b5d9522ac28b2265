"""Builders of Evidence for tests: made-up processes with real structure, no process is started.

A chain is written peer first; ``chain_of`` gives pids and parents. Digests are SHA-256 of a word, so vectors can be
recomputed. The default process belongs to uid 1000 in our own namespaces and was started by its parent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from attestd.appraisal.classes import ClassTable, parse_class_table
from attestd.appraisal.digests import Naming
from attestd.appraisal.references import References, RelayReference
from attestd.evidence.model import (
    CodeSignature,
    Evidence,
    FileFacts,
    InputHolders,
    Link,
    Namespaces,
    Origin,
    Peer,
    Script,
)

BOOT = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
OURS = Namespaces(user=4026531837, pid=4026531836, mnt=4026531841, ours_user=True, ours_pid=True, ours_mnt=True)
USER = 1000
HOME = "/home/dev"
NAMING = Naming(trust_domain="example.org", host_id="laptop-7")
SHIM_PATH = "/opt/attestd/bin/attestd-connect"
CLI_PATH = "/opt/attestd/bin/attestctl"


def sha(word: str) -> str:
    """A digest that anyone can recompute: SHA-256 of the word."""
    return hashlib.sha256(word.encode()).hexdigest()


PYTHON_SHA = sha("/usr/bin/python3.11")
REFERENCES = References(
    relays=(RelayReference(exe_sha256=PYTHON_SHA, script_sha256=sha(SHIM_PATH), script_path=SHIM_PATH),),
    cli=(RelayReference(exe_sha256=PYTHON_SHA, script_sha256=sha(CLI_PATH), script_path=CLI_PATH),),
)
USER_MODE = msgspec.structs.replace(REFERENCES, user_mode=True)


def shipped_table() -> ClassTable:
    """The table of this repository."""
    path = Path(__file__).parents[2] / "policy" / "classes.toml"
    return parse_class_table(path.read_text(encoding="utf-8"), "policy/classes.toml")


def file_of(path: str, **facts: Any) -> FileFacts:
    """A root-owned file that nobody else may write; a file under /home is the user's own."""
    own = path.startswith("/home")
    base: dict[str, Any] = {
        "path": path,
        "sha256": sha(path),
        "dev": 2049,
        "ino": int(sha(path)[:6], 16),
        "size": 4096,
        "mode": 0o100755,
        "owner_uid": USER if own else 0,
        "owner_gid": USER if own else 0,
        "ctime_ns": 1_700_000_000_000_000_000,
        "fs": "ext4",
        "writable": own,
    }
    return FileFacts(**(base | facts))


def origin_of(text: str, version: str = "1.0", *, verified: bool = True) -> Origin:
    """``dpkg:bash`` as an origin."""
    kind, _, name = text.partition(":")
    return Origin(kind=kind, name=name, version=version, verified=verified)


def link_of(path: str | None, origin: str = "", /, **facts: Any) -> Link:
    """One process. ``path`` None: unreadable. ``uid`` sets all four uids; ``file`` changes facts of the executable."""
    uid = facts.pop("uid", USER)
    file = facts.pop("file", {})
    base: dict[str, Any] = {
        "pid": 0,
        "start_ticks": 0,
        "pidfs_ino": None,
        "ppid": 0,
        "uids": (uid,) * 4,
        "gids": (uid,) * 4,
        "comm": (path or "hidden").rpartition("/")[2][:15],
        "argv": (path or "hidden",),
        "exe": file_of(path, **file) if path is not None else None,
        "origin": origin_of(origin) if origin else None,
        "script": None,
        "namespaces": OURS,
        "tracer_pid": 0,
        "tty": "pts/3",
        "session": 0,
        "cgroup": "/user.slice/user-1000.slice",
        "gaps": () if path is not None else ("exe: permission denied",),
    }
    return Link(**(base | facts))


def script_of(interpreter: str, path: str, origin: Origin | None = None, **facts: Any) -> Script:
    """A script file run by an interpreter of this family."""
    file = facts.pop("file", {})
    at = file_of(path, **file)
    base: dict[str, Any] = {"kind": "script", "interpreter": interpreter, "name": path, "sha256": at.sha256, "file": at}
    return Script(**(base | {"origin": origin} | facts))


def inline_of(interpreter: str, text: str) -> Script:
    """Code on the command line."""
    return Script(kind="inline", interpreter=interpreter, sha256=sha(text), text=text)


def shell(text: str | None = None, name: str = "bash", **facts: Any) -> Link:
    """A packaged shell at its prompt, or with ``-c text``."""
    script = Script(kind="none", interpreter="shell") if text is None else inline_of("shell", text)
    argv = (name,) if text is None else (name, "-c", text)
    return link_of(f"/usr/bin/{name}", f"dpkg:{name}", **({"script": script, "argv": argv} | facts))


def shim(server: str = "time", **facts: Any) -> Link:
    """attestd-connect of this installation."""
    script = script_of("python", SHIM_PATH)
    argv = ("/usr/bin/python3.11", SHIM_PATH, server)
    return link_of("/usr/bin/python3.11", "dpkg:python3.11-minimal", **({"script": script, "argv": argv} | facts))


def attestctl(**facts: Any) -> Link:
    """Our attestctl of this installation."""
    script = script_of("python", CLI_PATH)
    argv = ("/usr/bin/python3.11", CLI_PATH, "approve")
    return link_of("/usr/bin/python3.11", "dpkg:python3.11-minimal", **({"script": script, "argv": argv} | facts))


def python_client(path: str = f"{HOME}/client.py", **facts: Any) -> Link:
    """A client written in Python, in the user's home."""
    argv = ("python3", path)
    script = script_of("python", path)
    return link_of("/usr/bin/python3.11", "dpkg:python3.11-minimal", **({"script": script, "argv": argv} | facts))


def node_program(path: str, origin: Origin | None = None, **facts: Any) -> Link:
    """A program run by the packaged node."""
    script = script_of("node", path, origin)
    return link_of("/usr/bin/node", "dpkg:nodejs", **({"script": script, "argv": ("node", path)} | facts))


def claude(**facts: Any) -> Link:
    """Claude Code, installed by npm in the user's home."""
    root = f"{HOME}/.npm-global/lib/node_modules/@anthropic-ai/claude-code"
    origin = origin_of("npm:@anthropic-ai/claude-code", "2.1.328", verified=False)
    return node_program(f"{root}/cli.js", origin, **({"argv": ("claude",)} | facts))


def npm_tool(tool: str, *words: str, **facts: Any) -> Link:
    """The npm or npx as the Debian package of node brings them."""
    path = f"/usr/lib/node_modules/npm/bin/{tool}-cli.js"
    argv = ("node", f"/usr/bin/{tool}", *words)
    return node_program(path, origin_of("dpkg:nodejs"), **({"argv": argv} | facts))


def evil(path: str = f"{HOME}/.cache/evil", **facts: Any) -> Link:
    """A native program in a place the user can write."""
    return link_of(path, **facts)


def terminal(**facts: Any) -> Link:
    """A terminal emulator."""
    return link_of("/usr/bin/ghostty", "dpkg:ghostty", **({"tty": None} | facts))


def tmux(**facts: Any) -> Link:
    """The tmux server; it was adopted, as it always is."""
    return link_of("/usr/bin/tmux", "dpkg:tmux", **({"tty": None, "reparented": None} | facts))


def user_systemd(**facts: Any) -> Link:
    """A systemd --user."""
    return link_of("/usr/lib/systemd/systemd", "dpkg:systemd", **({"tty": None} | facts))


def gnome_shell(**facts: Any) -> Link:
    """A desktop shell."""
    return link_of("/usr/bin/gnome-shell", "dpkg:gnome-shell", **({"tty": None} | facts))


def sshd(**facts: Any) -> Link:
    """The user's process of sshd, read by a privileged daemon."""
    return link_of("/usr/lib/openssh/sshd-session", "dpkg:openssh-server", **({"tty": None} | facts))


SIGNED = 0x20012301
"""VALID HARD KILL REQUIRE_LV RUNTIME SIGNED."""


def mac_program(path: str, origin: str, /, *, signer: str = "", status: int = SIGNED, **facts: Any) -> Link:
    """A process on macOS. ``signer``: who stands behind the signature; empty: nobody, so that it is unverified."""
    team, _, identity = origin.rpartition("/")
    named = Origin(
        kind="codesign", name=origin if signer else f"unverified/{identity}", version="", verified=bool(signer),
        detail=signer or "signed ad hoc, by nobody",
    )  # fmt: skip
    category = {"Apple": 1, "App Store": 4, "Developer ID": 6}.get(signer, 10)
    signature = CodeSignature(status=status, cdhash=sha(path)[:40], identity=identity, team=team, category=category)
    namespaces = Namespaces(user=None, pid=None, mnt=None, ours_user=True, ours_pid=True, ours_mnt=True)
    base = {"signature": signature, "namespaces": namespaces, "cgroup": "", "tty": "ttys003"}
    return msgspec.structs.replace(link_of(path, **(base | facts)), origin=named)


def mac_zsh(text: str | None = None) -> Link:
    """Apple's zsh."""
    script = Script(kind="none", interpreter="shell") if text is None else inline_of("shell", text)
    argv = ("-zsh",) if text is None else ("zsh", "-c", text)
    return mac_program("/bin/zsh", "com.apple.zsh", signer="Apple", status=0x20010B01, script=script, argv=argv)


def mac_desk() -> tuple[Link, ...]:
    """Terminal with its login, and launchd."""
    path = "/System/Applications/Utilities/Terminal.app/Contents/MacOS/Terminal"
    return (
        mac_program("/usr/bin/login", "com.apple.login", signer="Apple", uids=(0, 0, 0, 0)),
        mac_program(path, "com.apple.Terminal", signer="Apple", tty=None),
        mac_program("/sbin/launchd", "com.apple.xpc.launchd", signer="Apple", pid=1, uid=0, tty=None),
    )


def mac_evidence_of(*links: Link, **facts: Any) -> Evidence:
    """Evidence of this chain on a Mac."""
    made = evidence_of(*links, exe_forgeable=False, recorder_reason="macOS needs no recorder", **facts)
    return msgspec.structs.replace(made, peer=msgspec.structs.replace(made.peer, source="token", pid_version=4711))


def init() -> Link:
    """Pid 1, unreadable as often."""
    return link_of(None, pid=1, uid=0, tty=None, comm="systemd")


def chain_of(*links: Link) -> tuple[Link, ...]:
    """Peer first: number the processes from 1000 downwards and link parents; pid 1 keeps its number."""
    pids = [link.pid or 1000 - 10 * index for index, link in enumerate(links)]
    parents = [*pids[1:], 0][: len(pids)]
    numbered = zip(links, pids, parents, strict=True)
    return tuple(
        msgspec.structs.replace(
            link,
            pid=pid,
            ppid=parent,
            start_ticks=link.start_ticks or 50_000 + pid,
            pidfs_ino=link.pidfs_ino or 7_000 + pid,
            session=link.session or pids[0],
        )
        for link, pid, parent in numbered
    )


def evidence_of(*links: Link, **facts: Any) -> Evidence:
    """Evidence of this chain, on a host where executables can be forged and no recorder runs.

    The relay's input is a pipe that the link above it holds, as a client does that started it.
    """
    chain = chain_of(*links)
    relayed = bool(chain) and chain[0].argv[1:2] == (SHIM_PATH,)
    uid = chain[0].uids[1] if chain else USER
    base: dict[str, Any] = {
        "peer": Peer(
            pid=chain[0].pid if chain else 0, uid=uid, gid=uid, groups=(uid,), security_label=None, source="peerpidfd"
        ),
        "chain": chain,
        "end": "init",
        "boot_id": BOOT,
        "recorder": "absent",
        "recorder_reason": "the kernel recorder is not part of this version",
        "exe_forgeable": True,
        "collected_ns": 1_763_000_000_000_000_000,
        "input": InputHolders(kind="pipe", pids=(chain[1].pid,), complete=True) if relayed and chain[1:] else None,
    }
    return Evidence(**(base | facts))
