"""Bytes to control messages and back.

Whatever the other side sends is a value or an AttestdError, never another exception.
Versions: the major number must be equal. It is read before anything else of the line, so that a request of another
version gets that answer and not a complaint about a key.
"""

from __future__ import annotations

from typing import Any

import msgspec

from attestd.control.messages import PROTOCOL, AnyRequest
from attestd.control.replies import Progress
from attestd.errors import AttestdError, ExitCode, NotPermittedError, UnreachableError, UsageError


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The daemon's first line."""

    protocol: str
    version: str
    nonce: str


class Item(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="item"):
    """One reply of the answer, still as JSON."""

    data: msgspec.Raw


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="done"):
    """The answer is complete."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="failure"):
    """The request was refused or failed."""

    code: str
    message: str
    hint: str
    exit_code: int


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request with what proves that it belongs to this connection."""

    protocol: str
    nonce: str
    request: AnyRequest


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str


ServerLine = Hello | Item | Progress | Done | Failure

_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(Envelope)
_server_line: msgspec.json.Decoder[ServerLine] = msgspec.json.Decoder(ServerLine)
_version = msgspec.json.Decoder(_Version)


class RemoteError(AttestdError):
    """What the daemon refused, as an error of this side: same code, message, hint and exit code."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, hint=failure.hint)
        self.code = failure.code
        known = failure.exit_code in ExitCode.__members__.values() and failure.exit_code != ExitCode.DONE
        self.exit_code = ExitCode(failure.exit_code) if known else ExitCode.FAILED


def encode(line: ServerLine | Envelope) -> bytes:
    """One message as one line with its newline."""
    return _encoder.encode(line) + b"\n"


def encode_reply(reply: msgspec.Struct) -> bytes:
    """One reply as an ``item`` line; a Progress stays what it is."""
    if isinstance(reply, Progress):
        return encode(reply)
    return encode(Item(data=msgspec.Raw(_encoder.encode(reply))))


def failure_of(error: AttestdError) -> Failure:
    """The line that tells an error."""
    return Failure(code=error.code, message=error.message, hint=error.hint, exit_code=int(error.exit_code))


def parse_request(line: bytes, nonce: str) -> AnyRequest:
    """Parse one line of a client. Raises UsageError, NotPermittedError (another nonce)."""
    try:
        same_major(_version.decode(line).protocol, whose="client")
        envelope = _envelope.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the request: {_plain(error)}", hint="use the attestctl of the same installation as attestd"
        ) from error
    if envelope.nonce != nonce:
        raise NotPermittedError(
            "cannot prove that the request is younger than the attestation of its caller: got another nonce than this "
            "connection's",
            hint="connect again and use the nonce of the hello line",
        )
    return envelope.request


def parse_server_line(line: bytes) -> ServerLine:
    """Parse one line of the daemon. Raises UnreachableError."""
    try:
        return _server_line.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UnreachableError(
            f"cannot understand the daemon's answer: {_plain(error)}",
            hint="attestctl and attestd must be of one installation; compare: attestctl --version, attestd --version",
        ) from error


def parse_reply(data: msgspec.Raw, reply: type[Any]) -> Any:
    """Parse the data of one item. Raises UnreachableError."""
    try:
        return msgspec.json.decode(data, type=reply)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UnreachableError(
            f"cannot understand the daemon's answer: {_plain(error)}",
            hint="attestctl and attestd must be of one installation; compare: attestctl --version, attestd --version",
        ) from error


def same_major(protocol: str, *, whose: str) -> None:
    """Refuse another major version of the protocol. Raises UsageError."""
    if protocol.partition(".")[0] != PROTOCOL.partition(".")[0]:
        raise UsageError(
            f"cannot speak with this {whose}: got control protocol {protocol[:20]!r}, expected {PROTOCOL!r}",
            hint="use attestctl and attestd of one installation",
        )


def _plain(error: Exception) -> str:
    """The text of a parser's complaint, bounded."""
    text = str(error)[:300] or type(error).__name__
    return text if text[:2].isupper() else text[0].lower() + text[1:]
