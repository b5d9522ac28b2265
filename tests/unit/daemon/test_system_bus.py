"""The system bus, as far as one question goes: what answers is a real socket, saying whatever a bus could say."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from jeepney import HeaderFields, Message, new_error, new_method_return
from jeepney.low_level import Parser

from attestd.daemon.polkit import APPROVE, Polkit, PolkitError, Subject
from attestd.daemon.system_bus import BusError, Call, RemoteBusError, ask

pytestmark = pytest.mark.root
"""Only root may be the bus."""

CALL = Call("org.example", "/a", "org.example.I", "Ask", "s", ("hello",))
UNDO = Call("org.example", "/a", "org.example.I", "Undo", "", ())
Talk = Callable[[Message], "bytes | Message | None"]
"""A method call, and what the bus says to it: raw bytes, a message, or nothing. It hangs up after empty bytes."""


@contextlib.asynccontextmanager
async def bus(path: Path, talk: Talk, *, greeting: bytes = b"OK 1234\r\n") -> AsyncIterator[list[str]]:
    """A bus at ``path``; the members that were called."""
    called: list[str] = []
    done: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await _serve(reader, writer, talk, greeting, called)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield called
    finally:
        server.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: Talk, greeting: bytes, called: list[str]
) -> None:
    assert (await reader.readuntil(b"\r\n")).startswith(b"\0AUTH EXTERNAL ")
    writer.write(greeting)
    assert await reader.readuntil(b"\r\n") == b"NEGOTIATE_UNIX_FD\r\n"
    writer.write(b"AGREE_UNIX_FD\r\n")
    assert await reader.readuntil(b"\r\n") == b"BEGIN\r\n"
    parser = Parser()
    while data := await reader.read(65536):
        for message in parser.feed(data):
            member = message.header.fields[HeaderFields.member]
            called.append(member)
            if member == "Hello":
                said: bytes | Message | None = new_method_return(message, "s", (":1.7",))
            else:
                said = talk(message)
            if said == b"":
                return
            if said is not None:
                writer.write(said if isinstance(said, bytes) else said.serialise(99))


async def test_an_answer_is_the_body(tmp_path: Path):
    """What the service says comes back as it is, whatever signals come before."""
    async with bus(tmp_path / "bus", lambda call: new_method_return(call, "su", ("yes", 7))) as called:
        assert await ask(tmp_path / "bus", CALL, seconds=5) == ("yes", 7)
    assert called == ["Hello", "Ask"]


async def test_an_error_is_the_services(tmp_path: Path):
    """Its name and words are told."""
    async with bus(tmp_path / "bus", lambda call: new_error(call, "org.example.No", "s", ("not you",))):
        with pytest.raises(RemoteBusError, match=r"org\.example\.No: not you"):
            await ask(tmp_path / "bus", CALL, seconds=5)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"", "closed the connection"),
        (b"\0" * 64, "cannot read the answer"),
        (b"l\x02\x00\x01" + b"\0\0\0\0\x09\0\0\0\x08\0\0\0" + b"\xff" * 8, "cannot read the answer"),
        (b"l\x63\x00\x01" + b"\0\0\0\0\x09\0\0\0\0\0\0\0", "cannot read the answer"),
        (b"l\x02\x00\x01\xff\xff\xff\x7f" + b"\0" * 8 + b"x" * (5 << 20), "longer than"),
    ],
)
async def test_what_is_no_answer_is_an_error(tmp_path: Path, said: bytes, what: str):
    """Hanging up, garbage, and more than is taken: nothing but BusError comes out."""
    async with bus(tmp_path / "bus", lambda _: said):
        with pytest.raises(BusError, match=what):
            await ask(tmp_path / "bus", CALL, seconds=20)


async def test_a_bus_that_does_not_let_us_in(tmp_path: Path):
    """REJECTED is an error that names our uid."""
    async with bus(tmp_path / "bus", lambda _: None, greeting=b"REJECTED EXTERNAL\r\n"):
        with pytest.raises(BusError, match="does not accept uid"):
            await ask(tmp_path / "bus", CALL, seconds=5)


async def test_no_bus(tmp_path: Path):
    """Nothing at its path: what to do is said."""
    with pytest.raises(BusError, match="cannot be reached") as refused:
        await ask(tmp_path / "bus", CALL, seconds=5)
    assert "polkitd" in refused.value.hint


async def test_silence_ends_and_the_question_is_taken_back(tmp_path: Path):
    """After the time the question is undone, on the same connection."""
    async with bus(tmp_path / "bus", _only_undo) as called:
        with pytest.raises(BusError, match="did not answer within"):
            await ask(tmp_path / "bus", CALL, seconds=0.05, undo=UNDO)
    assert called == ["Hello", "Ask", "Undo"]


async def test_who_gives_up_takes_the_question_back(tmp_path: Path):
    """A cancelled question is undone too."""
    asked = asyncio.Event()

    def talk(call: Message) -> Message | None:
        asked.set()
        return _only_undo(call)

    async with bus(tmp_path / "bus", talk) as called:
        work = asyncio.ensure_future(ask(tmp_path / "bus", CALL, seconds=20, undo=UNDO))
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert called == ["Hello", "Ask", "Undo"]


def _only_undo(call: Message) -> Message | None:
    return new_method_return(call) if call.header.fields[HeaderFields.member] == "Undo" else None


async def test_who_is_not_root_is_not_the_bus(tmp_path: Path):
    """A listener of another uid is told nothing."""
    os.chmod(tmp_path, 0o777)  # noqa: PTH101
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    path = tmp_path / "bus"
    source = f"import socket,time;s=socket.socket(socket.AF_UNIX);s.bind({str(path)!r});s.listen();print('r',flush=True);time.sleep(60)"
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "/usr/bin/python3", "-c", source]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd="/")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"r\n"
    with pytest.raises(BusError, match="uid 65534 listens"):
        await ask(path, CALL, seconds=5)
    process.kill()
    await process.wait()


SUBJECT = Subject(pid=4711, start=1, uid=5)
Answer = tuple[str, tuple[object, ...]]


@pytest.mark.parametrize(
    "answer",
    [("b", (True,)), ("(bb)", ((True, True),)), ("s", ("yes",)), ("(bbs)", ((True, False, ""),)), ("", ())],
)
async def test_polkits_answer_is_exactly_what_it_must_be(tmp_path: Path, answer: Answer):
    """Anything but (bba{ss}) authorizes nobody."""
    async with bus(tmp_path / "bus", lambda call: new_method_return(call, answer[0] or None, answer[1])):
        with pytest.raises(PolkitError, match="cannot read polkit's answer"):
            await Polkit(tmp_path / "bus").check(SUBJECT, APPROVE, "approve 7F3K-9QRT")


async def test_polkit_is_told_who_and_what(tmp_path: Path):
    """Process, action, words for the dialog, and that the person may be asked."""
    seen: list[Message] = []

    def talk(call: Message) -> Message:
        seen.append(call)
        return new_method_return(call, "(bba{ss})", ((False, True, {}),))

    async with bus(tmp_path / "bus", talk):
        await Polkit(tmp_path / "bus").check(SUBJECT, APPROVE, "approve 7F3K-9QRT")
    (kind, facts), action, details, flags, word = seen[0].body
    assert (kind, action, details, flags) == ("unix-process", APPROVE, {"request": "approve 7F3K-9QRT"}, 1)
    assert facts == {"pid": ("u", 4711), "start-time": ("t", 1), "uid": ("i", 5)}
    assert len(word) == 32
