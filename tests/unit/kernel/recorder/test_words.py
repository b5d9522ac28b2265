"""Words of execs: decoding and the bounded store."""

from __future__ import annotations

import pytest

from attestd.kernel.linux.recorder import layout
from attestd.kernel.linux.recorder.words import WordStore, decode, identity


def words(
    pid: int = 5,
    *,
    cwd: bytes = b"c\0b\0a\0",
    filename: bytes = b"/bin/x\0",
    interp: bytes = b"",
    argv: bytes = b"x\0y\0",
    environ: bytes = b"A=1\0",
    flags: int = 0,
    counter: int = 2,
) -> bytes:
    """An event as the program writes it."""
    sizes = (len(filename), len(interp), len(cwd), len(argv), len(environ), 0)
    head = layout.WORDS.pack(100, counter, 300, 400, pid, 8 << 20 | 1, flags, *sizes)
    return head + cwd + filename + interp + argv + environ


def test_an_event():
    """The path is turned round, the interpreter of a program is itself, and every word arrives."""
    event = decode(words())
    assert event is not None
    assert (event.key.pid, event.key.start_ns, event.exec_counter, event.time_ns) == (5, 100, 2, 300)
    assert (event.cwd, event.cwd_ino, event.filename, event.interp) == ("/a/b/c", 400, "/bin/x", "/bin/x")
    assert (event.argv, event.environ, event.truncated) == ((b"x", b"y"), (b"A=1",), False)


def test_a_script():
    """The interpreter is kept where it differs."""
    event = decode(words(interp=b"/bin/sh\0"))
    assert event is not None
    assert (event.filename, event.interp) == ("/bin/x", "/bin/sh")


def test_the_root_directory_and_an_unknown_one():
    """No components mean the root, unless the path was cut: then it is not known."""
    root, unknown = decode(words(cwd=b"")), decode(words(cwd=b"", flags=layout.PATH_CUT))
    assert root is not None
    assert unknown is not None
    assert (root.cwd, root.truncated) == ("/", False)
    assert (unknown.cwd, unknown.truncated) == ("", True)


@pytest.mark.parametrize(
    ("argv", "flags", "expected"),
    [
        (b"", 0, ()),
        (b"\0", 0, (b"",)),
        (b"a\0\0", 0, (b"a", b"")),
        (b"a\0bc", layout.ARGV_CUT, (b"a", b"bc")),
        (b"a\0b\0", layout.ARGV_CUT, (b"a", b"b")),
    ],
)
def test_argument_lists(argv: bytes, flags: int, expected: tuple[bytes, ...]):
    """Empty words are words; the last one of a cut list may be incomplete."""
    event = decode(words(argv=argv, flags=flags))
    assert event is not None
    assert event.argv == expected
    assert event.argv_truncated == bool(flags)


@pytest.mark.parametrize("data", [b"", bytes(20), words()[:-1], bytes(layout.WORDS.size - 1)])
def test_what_does_not_fit_its_lengths(data: bytes):
    """It is no event."""
    assert decode(data) is None


def test_an_empty_identity():
    """Bytes without a pid belong to nobody."""
    assert identity(bytes(layout.WORDS.size)) is None
    assert identity(b"") is None


def test_the_store_forgets_the_oldest():
    """It stays below its limit, counts what it forgot, and keeps one event once."""
    store = WordStore(limit_bytes=5 * (len(words()) + 300))
    for pid in range(1, 9):
        store.add(words(pid))
        store.add(words(pid))
    assert (len(store), store.forgotten) == (5, 3)
    assert store.get(1, 100, 2) is None
    newest = store.get(8, 100, 2)
    assert newest is not None
    assert newest.key.pid == 8
    assert store.get(8, 100, 3) is None
