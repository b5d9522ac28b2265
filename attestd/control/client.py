"""The blocking client of the control socket, for the command line.

One connection per question: a person may think for minutes between seeing a pending client and agreeing, and the
daemon must attest the one who agrees, not the one who looked.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from attestd.control.daemon_proof import Us, find, owner, prove_listener
from attestd.control.lines import (
    Envelope,
    Failure,
    Hello,
    Item,
    RemoteError,
    ServerLine,
    encode,
    parse_reply,
    parse_server_line,
    same_major,
)
from attestd.control.messages import PROTOCOL, REPLY_BYTES, Request, Scoped
from attestd.control.replies import Progress
from attestd.control.routes import ROUTES
from attestd.errors import AgentNeededError, UnreachableError, UsageError

ReplyT = TypeVar("ReplyT")
CONNECT_S = 5.0
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One item of an answer: the JSON as it came, and the value."""

    json: msgspec.Raw
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlClient:
    """Asks the daemon. Every method raises UnreachableError and RemoteError (the daemon's refusal)."""

    socket: Path | None = None
    """None: the user's, else the system's."""
    timeout_s: float = 60.0
    """Longest silence of the daemon within one answer."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    us: Us = field(default_factory=Us.here)
    all_users: bool = False
    """Ask about all users' things, wherever a request is about somebody's."""
    agent: Callable[[], AbstractContextManager[bool]] | None = None
    """Makes somebody ask for passwords while it lasts; its value is whether there is now. None: nobody can."""

    def one(self, request: Request[ReplyT]) -> ReplyT:
        """Ask what has one answer."""
        answers = self.all(request)
        if len(answers) != 1:
            raise UnreachableError(f"cannot understand the daemon's answer: got {len(answers)} objects, expected 1")
        return answers[0]

    def all(self, request: Request[ReplyT]) -> list[ReplyT]:
        """Ask what has any number of answers, few enough to hold."""
        return [answer.value for answer in self.stream(request)]

    def stream(
        self,
        request: Request[Any],
        *,
        progress: Callable[[Progress], None] = lambda _: None,
        patient: bool = False,
    ) -> Iterator[Answer]:
        """Ask, and yield the items as they come. ``patient``: the daemon may be silent for ever (follow).

        Where the daemon says that nobody is there to ask for a password, it is asked once more with an agent.
        """
        if self.all_users and isinstance(request, Scoped):
            request = msgspec.structs.replace(request, all_users=True)
        try:
            yield from self._stream(request, progress=progress, patient=patient)
        except RemoteError as refused:
            if refused.code != AgentNeededError.code or self.agent is None:
                raise
            with self.agent() as there:
                if not there:
                    raise
                yield from self._stream(request, progress=progress, patient=patient)

    def _stream(
        self, request: Request[Any], *, progress: Callable[[Progress], None], patient: bool
    ) -> Iterator[Answer]:
        reply = ROUTES[type(request)].reply
        with self._connected() as lines:
            hello = lines.next()
            if not isinstance(hello, Hello):
                raise _unexpected(hello)
            same_major(hello.protocol, whose="daemon")
            lines.send(_line(hello.nonce, request))
            while True:
                line = lines.next(patient=patient)
                if isinstance(line, Item):
                    yield Answer(json=line.data, value=parse_reply(line.data, reply))
                elif isinstance(line, Progress):
                    progress(line)
                elif isinstance(line, Failure | Hello):
                    raise _unexpected(line)
                else:
                    return

    @contextmanager
    def _connected(self) -> Iterator[_Lines]:
        place = find(self.socket, self.us.uid, self.environ)
        owner_uid = owner(place, self.us)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            # Blocking, with the kernel's own time limit: a full queue is waited in, not given up at.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(min(CONNECT_S, self.timeout_s)))
            try:
                sock.connect(str(place.path))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))
            except OSError as error:
                raise UnreachableError(
                    f"cannot reach attestd at {place.path}: {error.strerror or error}",
                    hint="start it with: attestd run --user",
                ) from error
            prove_listener(sock, place, owner_uid, self.us)
            yield _Lines(sock, place.path, self.timeout_s)


class _Lines:
    """The daemon's lines, bounded in size and time."""

    def __init__(self, sock: socket.socket, path: Path, timeout_s: float) -> None:
        self._sock = sock
        self._path = path
        self._timeout_s = timeout_s
        self._buffer = bytearray()

    def next(self, *, patient: bool = False) -> ServerLine:
        """Return the next line. Raises UnreachableError."""
        deadline = None if patient else time.monotonic() + self._timeout_s
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_BYTES:
                raise UnreachableError(f"cannot read the daemon's answer: one line is longer than {REPLY_BYTES} bytes")
            self._buffer += self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return parse_server_line(line)

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises UnreachableError."""
        self._sock.settimeout(self._timeout_s)
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def _receive(self, deadline: float | None) -> bytes:
        if deadline is not None and (left := deadline - time.monotonic()) <= 0:
            raise self._silent()
        self._sock.settimeout(None if deadline is None else left)
        try:
            data = self._sock.recv(_READ_BYTES)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            raise UnreachableError(
                f"cannot read the daemon's answer: {self._path} was closed in the middle of it",
                hint="see what the daemon says: attestctl status, or its log",
            )
        return data

    def _silent(self) -> UnreachableError:
        return UnreachableError(
            f"cannot wait longer for attestd at {self._path}: it said nothing for {self._timeout_s:g} s",
            hint="try again; if it stays so, start attestd again",
        )

    def _lost(self, error: OSError) -> UnreachableError:
        return UnreachableError(f"cannot talk with attestd at {self._path}: {error.strerror or error}")


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1_000_000))


def _line(nonce: str, request: Request[Any]) -> bytes:
    try:
        return encode(Envelope(protocol=PROTOCOL, nonce=nonce, request=request))  # type: ignore[arg-type]
    except UnicodeEncodeError as error:
        raise UsageError("cannot send what is not valid UTF-8: check the words of the command") from error


def _unexpected(line: ServerLine) -> Exception:
    if isinstance(line, Failure):
        return RemoteError(line)
    return UnreachableError(f"cannot understand the daemon's answer: got {type(line).__name__.lower()} out of turn")
