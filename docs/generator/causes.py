"""docs/reference/causes.md: each cause of a refusal, from ``errors.Cause`` and the tables that know it."""

from __future__ import annotations

from attestd.errors import Cause
from attestd.mediation import APPROVABLE, ENDING, TRANSIENT
from attestd.wire.refusal import ADVICE, CLAUSES
from docs.generator.markdown import page

GROUPS: dict[str, tuple[Cause, ...]] = {
    "The caller": (
        Cause.PEER_GONE,
        Cause.FOREIGN_NAMESPACE,
        Cause.INCONSISTENT,
        Cause.UNATTESTABLE,
        Cause.TRACED,
        Cause.WRITER_MISMATCH,
        Cause.IMAGE_CHANGED,
        Cause.CHAIN_CHANGED,
        Cause.UNPROVEN,
    ),
    "The decision": (
        Cause.NO_GRANT,
        Cause.OUT_OF_SCOPE,
        Cause.LEVEL_TOO_LOW,
        Cause.LAUNCHER,
        Cause.INLINE,
        Cause.SEARCH_PATH,
        Cause.EXPIRED,
        Cause.SERVER_REQUEST,
        Cause.POLICY_FORBID,
        Cause.POLICY_ERROR,
    ),
    "The message": (
        Cause.MALFORMED,
        Cause.TOO_LARGE,
        Cause.TOO_DEEP,
        Cause.BATCH,
        Cause.UNKNOWN_METHOD,
        Cause.NOT_OUTSTANDING,
        Cause.NOT_FOUND,
        Cause.ERA,
        Cause.SHARED_STATE,
    ),
    "Limits and the world": (
        Cause.LIMIT_CONNECTIONS,
        Cause.LIMIT_REQUESTS,
        Cause.SERVER_UNAVAILABLE,
        Cause.SERVER_UNTRUSTED,
        Cause.SERVER_MALFORMED,
        Cause.AUDIT_UNAVAILABLE,
        Cause.SHUTTING_DOWN,
        Cause.INTERNAL,
    ),
    "Approving": (Cause.NOT_APPROVER, Cause.BAD_CODE),
}

WHAT: dict[Cause, str] = {
    Cause.PEER_GONE: "The process that connected, or the accountable client, exited before or while it was "
    "attested, or during the session. A connection that outlives its maker belongs to nobody.",
    Cause.FOREIGN_NAMESPACE: "The peer has no pid here: it runs in a pid namespace that the daemon cannot see. Run the "
    "client outside of that container, or the daemon outside of its own.",
    Cause.INCONSISTENT: "The process or its ancestors kept executing other programs or exiting while they were "
    "read, three times in a row.",
    Cause.UNATTESTABLE: "Assurance level 0, or nothing that could be attested: an orphan, a foreign namespace, a "
    "memory-only image, a preload, an unreadable process, a script that cannot be told. The reasons are shown by "
    "`attestctl inspect --pid N` and explained in [levels.md](levels.md). No grant can lift it.",
    Cause.TRACED: "A debugger is attached to the peer or to the accountable client; it could say anything in its name.",
    Cause.WRITER_MISMATCH: "The bytes were written by another process than the one that connected: a fork, or the "
    "receiver of the descriptor. Each process must connect for itself.",
    Cause.IMAGE_CHANGED: "The peer or the accountable client executed another program. The new program must connect "
    "itself.",
    Cause.CHAIN_CHANGED: "A process between the peer and the accountable client has exited, so the chain that was "
    "attested is no more.",
    Cause.UNPROVEN: "The bytes may have been written by another program that ran in this process before. Clients that "
    "answer `ping` (legacy) or an `input_required` result (2026-07-28) are served at once when they ask again; "
    "a client that answers neither is served only on a direct socket.",
    Cause.NO_GRANT: "No grant names this program of this user on this server. This is what a newcomer meets.",
    Cause.OUT_OF_SCOPE: "The program holds a grant on this server, but not for this tool, resource or prompt.",
    Cause.LEVEL_TOO_LOW: "The grant demands a higher assurance level than the caller has now. Lift the reasons that "
    "`attestctl inspect` shows; approving again does not help.",
    Cause.LAUNCHER: "The program was started by another one that its grant does not name; it may drive it. Approving "
    "makes a grant that names this launcher too.",
    Cause.INLINE: "The call came through inline code such as `sh -c`, which the grant does not accept. Approve with "
    "`--inline`, or start the client without it.",
    Cause.SEARCH_PATH: "The program was started with a code search path (PYTHONPATH and its like) that its grant "
    "does not name, so other code may be loaded.",
    Cause.EXPIRED: "The grant has run out, was for another process or login session, or the clock was set back.",
    Cause.SERVER_REQUEST: "The server asked the client for sampling, elicitation or roots, in a request or within an "
    "answer. Approve with `--server-request`.",
    Cause.POLICY_FORBID: "A policy forbids it. `attestctl explain` names the policy; forbid wins over every grant.",
    Cause.POLICY_ERROR: "A policy could not be evaluated for this request. Errors deny. `attestctl explain` names it.",
    Cause.MALFORMED: "The message is not exactly one strict JSON-RPC message of MCP, or its id is still in use.",
    Cause.TOO_LARGE: "The message is larger than `limits.message_bytes`, or holds too many values.",
    Cause.TOO_DEEP: "The message nests deeper than `limits.depth`.",
    Cause.BATCH: "A batch where the negotiated revision has none, or too long a batch.",
    Cause.UNKNOWN_METHOD: "The method is not in the tables of the negotiated revision ([methods.md](methods.md)).",
    Cause.NOT_OUTSTANDING: "A response, cancellation or progress that belongs to nothing of this caller; it was "
    "dropped.",
    Cause.NOT_FOUND: "A task, request state or subscription that is not this caller's does not exist for it.",
    Cause.ERA: "Client and server speak different protocol eras, attestd translates, and this exists in one era only: "
    "tasks, or a question that the client does not offer to answer. Or the server speaks no era that attestd does.",
    Cause.SHARED_STATE: "The server is shared, and the request would change it for its other callers.",
    Cause.LIMIT_CONNECTIONS: "`limits.connections_per_uid` or `limits.attesting_per_uid` is reached, or the daemon "
    "is out of file descriptors.",
    Cause.LIMIT_REQUESTS: "`limits.open_requests` is reached on this connection.",
    Cause.SERVER_UNAVAILABLE: "The server could not be started or reached, or ended. The detail has its last words.",
    Cause.SERVER_UNTRUSTED: "On the server's socket listens another user or program than the registry says.",
    Cause.SERVER_MALFORMED: "The server answered with something that is not MCP.",
    Cause.AUDIT_UNAVAILABLE: "The decision could not be recorded (a full disk, an I/O error), so nothing was done.",
    Cause.SHUTTING_DOWN: "The daemon stops, or the server was removed.",
    Cause.INTERNAL: "A mistake of attestd's own; the request was refused. Please report it with the decision.",
    Cause.NOT_APPROVER: "An approval came from a chain that is not clean, for example from an agent's shell. "
    "Recorded as such; `attestctl` ends with exit code 4. Do it yourself, in a terminal, or as root.",
    Cause.BAD_CODE: "The code is unknown, used up or has expired (`approval.code_minutes`). `attestctl` ends with exit "
    "code 4. Let the client ask again.",
}

SHIM: dict[str, tuple[str, str, str]] = {
    "daemon_unreachable": (
        "cannot reach the daemon at PATH",
        "`attestd-connect` found no socket, or nobody accepts on it. Nothing was sent.",
        "Start the daemon (`attestd run --user`), register the server, or name the socket with `--socket`.",
    ),
    "daemon_untrusted": (
        "cannot trust the daemon",
        "What listens is not the daemon of this installation, or others may write there. Nothing was sent.",
        "Find out what listens there. Use the `attestd-connect` that was installed with the running `attestd`.",
    ),
}


def render() -> str:
    """Return the page."""
    introduction = (
        "A refusal is a JSON-RPC error on the request's own id with the code -31403; `error.data.cause` is one of "
        "these words. Causes about the message's form are protocol errors with codes of the specification (-32600 "
        "and its like), and carry the cause in `error.data` as well. Each is recorded in the audit log under the "
        "same word. *Retry* says whether the same request can succeed later; a refusal that an approval can lift "
        "carries a code."
    )
    parts = [introduction]
    for title, causes in GROUPS.items():
        parts.append(f"## {title}")
        parts += map(_section, causes)
    parts.append("## Of attestd-connect alone\n\nThe shim answers these itself, while there is no daemon to ask.")
    for name, (text, what, todo) in SHIM.items():
        retry = "yes" if name == "daemon_unreachable" else "no"
        parts.append(f'### {name}\n\n"{text}"\n\n{what}\n\n- Retry: {retry}\n- To do: {todo}')
    return page("Causes of refusals", "`attestd/errors.py`, `wire/refusal.py` and `mediation.py`", *parts)


def _section(cause: Cause) -> str:
    clause = CLAUSES[cause].replace("{caller}", "*caller*")
    lines = [f'### {cause.value}\n\n"{clause}"', WHAT[cause], f"- Retry: {_retry(cause)}"]
    if cause in ENDING:
        lines[-1] += "\n- The session ends: what was attested is no longer who is there."
    if cause in ADVICE:
        lines[-1] += f"\n- To do: {ADVICE[cause]}"
    return "\n\n".join(lines)


def _retry(cause: Cause) -> str:
    if cause in APPROVABLE:
        return "after approval (`attestctl approve CODE`)"
    return "yes" if cause in TRANSIENT else "no"
