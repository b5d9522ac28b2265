"""Every reason that can stand in an attestation result: its cap on the level, what it means, what lifts it.

A literal table; docs/reference is generated from it. Codes are stable. The level is the least cap of all reasons found.
"""

from __future__ import annotations

import msgspec

from attestd.appraisal.model import Reason


class CapRule(msgspec.Struct, frozen=True):
    """One row."""

    cap: int
    doc: str
    remedy: str = ""


CAPS: dict[str, CapRule] = {
    # 0: refused outright
    "orphan": CapRule(
        0,
        "A parent has exited or may not be the process that started this one; the true launcher is unknown.",
        "Start the client from a terminal or desktop that stays, or install the kernel recorder.",
    ),
    "no-terminal": CapRule(
        0,
        "Only shells and launchers stand between the call and the end of the chain, and no person sits at a terminal.",
        "Let a program of its own make the call.",
    ),
    "chain-limit": CapRule(0, "The chain is longer than 32 links and its top was not seen."),
    "chain-unreadable": CapRule(0, "The parent of a link could not be examined."),
    "unreadable": CapRule(
        0,
        "The accountable process cannot be read, so nothing says what it is.",
        "Run attestd as the system service, which may read other users' and protected processes.",
    ),
    "traced": CapRule(0, "A debugger is attached to a process of the call; it may say anything.", "Detach it."),
    "image-forged": CapRule(
        0,
        "The process shows another executable than the one that the kernel recorded when it was executed.",
        "Find out what this process is: only an attack does this.",
    ),
    "debugged": CapRule(
        0,
        "The process is or was debugged: the kernel let other code than the signed one run in it (macOS).",
        "Start the client again, without a debugger.",
    ),
    "signature-invalid": CapRule(
        0,
        "The signature over the running image does not hold any more: its code was changed in memory (macOS).",
        "Start the client again; find out what changed it.",
    ),
    "dead": CapRule(0, "The accountable process has exited."),
    "foreign-user-namespace": CapRule(
        0, "A process of the call is in a foreign or unknown user namespace, without a container identity."
    ),
    "foreign-pid-namespace": CapRule(
        0, "A process of the call is in a foreign or unknown pid namespace, without a container identity."
    ),
    "memfd": CapRule(0, "The executable or script exists in memory only."),
    "preload": CapRule(
        0,
        "A variable, option or mapping puts other code into the process; the digest does not say what runs.",
        "Start it without that variable or option.",
    ),
    "relay-refused": CapRule(
        0,
        "The digests are those of attestd-connect, but a condition for being it does not hold (see the detail).",
        "Start the installed attestd-connect by its absolute path, without preloads or search paths.",
    ),
    "script-unknown": CapRule(
        0,
        "What the interpreter runs came from standard input or could not be told or read.",
        "Put the code into a file and name it on the command line.",
    ),
    "script-younger": CapRule(
        0,
        "The script changed after the process started: what was hashed may not be what was loaded.",
        "Restart the client.",
    ),
    "input-shared": CapRule(0, "A process that is not part of the call can write to the standard input of the relay."),
    "input-unheld": CapRule(
        0,
        "No process of the call can write to the standard input of the relay, so what waits there came from elsewhere.",
        "Let the client keep the standard input of attestd-connect open.",
    ),
    "pid-only": CapRule(0, "The kernel named the peer by number only; another process may carry that number now."),
    "tcp-shared": CapRule(
        0,
        "Several processes hold the caller's TCP socket, or held it: any of them may have written.",
        "Use the Unix socket, where the kernel names the writer of every message.",
    ),
    "tcp-exec": CapRule(0, "The caller executed another program after it connected over TCP.", "Connect again."),
    "uid-ambiguous": CapRule(0, "The processes of the call belong to two ordinary users; neither is the weaker one."),
    # 1: exact bytes, but not beyond the caller's reach
    "image-claimed": CapRule(
        1,
        "Unprivileged user namespaces are allowed here, so a process can forge its executable; no exec was recorded.",
        "Install the kernel recorder, or forbid unprivileged user namespaces.",
    ),
    "environ-cut": CapRule(
        1,
        "The environment at exec was recorded in part only; a variable that loads code may be missing.",
        "Start the client with a smaller environment.",
    ),
    "exe-writable": CapRule(1, "The caller can write or replace the executable.", "Install it root-owned."),
    "exe-deleted": CapRule(1, "The executable was deleted or replaced after the start.", "Restart the client."),
    "exe-fuse": CapRule(1, "The file is on a FUSE file system, whose owner decides what each reader sees."),
    "exe-network": CapRule(1, "The file is on a network file system, which can change under the digest."),
    "script-writable": CapRule(1, "The caller can write or replace the script.", "Install it root-owned."),
    "inline-program": CapRule(1, "The program is text on a command line.", "Put the code into a file."),
    "bare-interpreter": CapRule(1, "An interpreter or shell without named code is the accountable program."),
    "debuggable": CapRule(
        1,
        "The program allows every process of its user to control it (the get-task-allow entitlement, macOS).",
        "Use a release build of the client.",
    ),
    "relay-writable": CapRule(
        1, "attestd-connect is installed where the caller can write it.", "Install attestd for the system."
    ),
    "search-path": CapRule(
        1, "A search path may lead the process to other code.", "Start it without that variable or option."
    ),
    "foreign-mount-namespace": CapRule(1, "The process sees other files than the top of its chain does."),
    "tcp-writer": CapRule(
        1,
        "The caller came over TCP, where the kernel does not name the writer of a message.",
        "Use the server's Unix socket, or attestd-connect.",
    ),
    "tcp-exec-unknown": CapRule(
        1,
        "Whether the caller executed another program after it connected over TCP is not known.",
        "Install the kernel recorder, or use the Unix socket.",
    ),
    "launcher": CapRule(
        1,
        "Another program started the accountable client; it may drive it.",
        "Approve the client together with this launcher, or start it from a terminal or desktop.",
    ),
    "launcher-unknown": CapRule(
        1,
        "A launcher is a child of pid 1 or systemd, and it is not known whether they started it or adopted it.",
    ),
    "input-unknown": CapRule(1, "It is not known who else can write to the standard input of the relay."),
    "input-file": CapRule(1, "The standard input of the relay is a file, which anyone may have written."),
    "uid-mixed": CapRule(1, "Real, effective and saved uid differ; decided on the weaker one."),
    "uid-crossed": CapRule(1, "The processes of the call or its launch belong to several uids; decided on the weaker."),
    # 2, 3: what is missing to the next level
    "origin-unverified": CapRule(2, "No package vouches for these bytes, or the file is not root's."),
    "no-kernel-signature": CapRule(3, "The kernel does not enforce a signature over this file."),
    "runtime-weakened": CapRule(
        3,
        "The signature leaves a way for other code (macOS): not enforced on every page, no hardened runtime, or no "
        "library validation.",
    ),
    # 4: remarks
    "signed": CapRule(4, "The kernel enforces the signature of a verified signer over every page of the program."),
    "inspected": CapRule(4, "The process was named by number, not by a socket."),
}


def reason(code: str, detail: str = "") -> Reason:
    """One reason with the cap of the table."""
    return Reason(cap=CAPS[code].cap, code=code, detail=detail)
