"""What a client is told: refusals, protocol errors, and the few messages that attestd itself sends.

A refusal is a JSON-RPC error on the request's own id with code -31403, which lies outside the reserved range: clients
show its text and pass its data on. The text says what was refused, why, and what to do; it never tells a caller of
tools or servers that it did not name itself. Names in it are shortened and hold nothing that a terminal would obey.
"""

from __future__ import annotations

from typing import Any, Final

from attestd.errors import Cause
from attestd.wire.model import REFUSED, Json, Refusal
from attestd.wire.serialise import to_line

_SHOWN: Final = 120
"""Characters of a name that a text shows."""

CLAUSES: Final[dict[Cause, str]] = {
    Cause.PEER_GONE: "the calling process has gone",
    Cause.FOREIGN_NAMESPACE: "{caller} runs in a user or pid namespace that is not this machine's",
    Cause.INCONSISTENT: "{caller} kept changing while it was attested",
    Cause.UNATTESTABLE: "{caller} cannot be attested",
    Cause.TRACED: "a debugger is attached to {caller}",
    Cause.WRITER_MISMATCH: "the message was not written by the process that connected",
    Cause.IMAGE_CHANGED: "{caller} has executed another program since it connected",
    Cause.CHAIN_CHANGED: "a process that launched {caller} has gone since it connected",
    Cause.UNPROVEN: "the message may be older than the attestation of {caller}",
    Cause.NO_GRANT: "no grant for {caller}",
    Cause.LEVEL_TOO_LOW: "the assurance of {caller} is too low",
    Cause.LAUNCHER: "{caller} was launched by a program that its grant does not name",
    Cause.INLINE: "{caller} was started through inline code, which its grant does not accept",
    Cause.SEARCH_PATH: "{caller} was started with a code search path that its grant does not name",
    Cause.EXPIRED: "the grant of {caller} has expired",
    Cause.OUT_OF_SCOPE: "the grant of {caller} does not cover it",
    Cause.POLICY_FORBID: "policy forbids it to {caller}",
    Cause.POLICY_ERROR: "policy could not be evaluated for {caller}",
    Cause.SERVER_REQUEST: "the grant of {caller} accepts no such request from this server",
    Cause.MALFORMED: "the message is malformed",
    Cause.TOO_LARGE: "the message is too large",
    Cause.TOO_DEEP: "the message nests too deep",
    Cause.BATCH: "batches are not accepted here",
    Cause.UNKNOWN_METHOD: "the method is unknown",
    Cause.NOT_OUTSTANDING: "it answers nothing that is outstanding",
    Cause.NOT_FOUND: "there is no such task, subscription or session",
    Cause.ERA: "the server speaks another protocol era, which does not have it",
    Cause.SHARED_STATE: "it would change the server for its other callers",
    Cause.LIMIT_CONNECTIONS: "too many connections are open",
    Cause.LIMIT_REQUESTS: "too many requests are open",
    Cause.SERVER_UNAVAILABLE: "the server is not available",
    Cause.SERVER_UNTRUSTED: "what answers in the server's place is not the program that it must be",
    Cause.SERVER_MALFORMED: "the server's answer is malformed",
    Cause.AUDIT_UNAVAILABLE: "the audit log cannot be written",
    Cause.SHUTTING_DOWN: "attestd is shutting down",
    Cause.INTERNAL: "attestd failed",
    Cause.NOT_APPROVER: "{caller} may not approve",
    Cause.BAD_CODE: "the approval code is unknown or has expired",
}
"""Why, as a clause; ``{caller}`` stands for the caller's line. One entry per cause."""

ADVICE: Final[dict[Cause, str]] = {
    Cause.PEER_GONE: "Start the client again.",
    Cause.INCONSISTENT: "Try again.",
    Cause.TRACED: "Detach the debugger and connect again.",
    Cause.IMAGE_CHANGED: "Connect again.",
    Cause.CHAIN_CHANGED: "Connect again.",
    Cause.UNPROVEN: "Try again.",
    Cause.LIMIT_CONNECTIONS: "Close connections that are not needed and try again.",
    Cause.LIMIT_REQUESTS: "Wait for open requests to be answered and try again.",
    Cause.SERVER_UNAVAILABLE: "See: attestctl servers list",
    Cause.SERVER_UNTRUSTED: "See: attestctl servers list",
    Cause.AUDIT_UNAVAILABLE: "See: attestctl status",
    Cause.SHUTTING_DOWN: "Connect again when it is back.",
}
"""What to do where no approval helps and the explanation of the decision tells no more."""

_EXPLAINED: Final = frozenset(
    {
        Cause.FOREIGN_NAMESPACE,
        Cause.UNATTESTABLE,
        Cause.NO_GRANT,
        Cause.LEVEL_TOO_LOW,
        Cause.LAUNCHER,
        Cause.INLINE,
        Cause.SEARCH_PATH,
        Cause.EXPIRED,
        Cause.OUT_OF_SCOPE,
        Cause.POLICY_FORBID,
        Cause.POLICY_ERROR,
        Cause.SERVER_REQUEST,
        Cause.INTERNAL,
    }
)


def refusal_text(
    *,
    cause: Cause,
    method: str,
    name: str,
    server: str,
    caller: str,
    detail: str = "",
    code: str | None = None,
    decision: str = "",
) -> str:
    """Compose the text of a refusal: what and why on the first line, what to do on the second.

    Args:
        cause: Why.
        method: What was asked.
        name: Of the tool, prompt or resource; empty if the message named none.
        server: The server's registered name.
        caller: The caller's rendered line.
        detail: One clause that says more, or empty. What only repeats the cause is left out.
        code: The approval code, if a person may approve.
        decision: The id of the decision, for ``attestctl explain``.

    Returns:
        One or two lines.
    """
    what = f'{shown(method)} "{shown(name)}"' if name else shown(method)
    why = CLAUSES[cause].replace("{caller}", shown(caller, 4 * _SHOWN) or "the caller")
    repeated = detail == CLAUSES[cause].replace("{caller}", "the caller")
    more = f" ({shown(detail, 2 * _SHOWN)})" if detail and not repeated else ""
    first = f'attestd refused {what} on "{shown(server)}": {why}{more}.'
    if code:
        return f"{first}\nApprove it with: attestctl approve {code}"
    advice = ADVICE.get(cause, f"See why: attestctl explain {decision}" if decision and cause in _EXPLAINED else "")
    return f"{first}\n{advice}" if advice else first


def refuse(message_id: str | int, refusal: Refusal) -> bytes:
    """The answer to a refused request, as a line."""
    data = {
        "cause": refusal.cause.value,
        "code": refusal.code,
        "decision": refusal.decision,
        "server": refusal.server,
        "method": refusal.method,
        "name": refusal.name,
        "caller": {"program": refusal.program, "level": refusal.level, "display": refusal.display},
        "retry": refusal.retry,
    }
    return error_line(message_id, REFUSED, refusal.text, data)


def error_line(message_id: str | int | None, rpc_code: int, text: str, data: Json = None) -> bytes:
    """A JSON-RPC error as a line; the id is null where the message that caused it told none."""
    error: dict[str, Any] = {"code": rpc_code, "message": text}
    if data is not None:
        error["data"] = data
    return to_line({"jsonrpc": "2.0", "id": message_id, "error": error})


def result_line(message_id: str | int, result: dict[str, Any]) -> bytes:
    """A JSON-RPC result as a line."""
    return to_line({"jsonrpc": "2.0", "id": message_id, "result": result})


def ping_line(message_id: str | int) -> bytes:
    """The challenge of the legacy era as a line: every client must answer a ping with an empty result."""
    return to_line({"jsonrpc": "2.0", "id": message_id, "method": "ping"})


def input_required_line(message_id: str | int, state: str) -> bytes:
    """The challenge of the modern era as a line: the client retries, at once if it likes, and must echo the state.

    Only an answer to a method of ``methods.CHALLENGED`` may be this. It needs the state because it holds no
    questions.
    """
    return result_line(message_id, {"resultType": "input_required", "requestState": state})


def shown(text: str, characters: int = _SHOWN) -> str:
    """A text that others chose, safe to see: one line, bounded, no control or direction characters."""
    cut = text if len(text) <= characters else text[: characters - 1] + "…"
    return "".join(char if char.isprintable() and char != '"' else "?" for char in cut)
