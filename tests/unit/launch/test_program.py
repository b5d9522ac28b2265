"""The parts of the launcher process that can be looked at from inside one process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from attestd.launch import program
from attestd.launch.protocol import Command, Sandbox
from attestd.launch.starting import encode


def test_an_order_is_read_as_it_was_written() -> None:
    """What the client encodes is what the launcher decodes, empty words and equals signs included."""
    command = Command(argv=("a", "", "ü=\udcff"), env=(("X", "1=2"), ("EMPTY", "")), cwd="/tmp")
    order = program.Order(encode(command, "/bin/a", 1.5))
    assert (order.grace_s, order.file, order.cwd) == (1.5, b"/bin/a", b"/tmp")
    assert order.argv == [b"a", b"", b"\xc3\xbc=\xff"]
    assert order.env == {b"X": b"1=2", b"EMPTY": b""}
    assert (order.sandbox.network, order.sandbox.read_only, order.sandbox.limits) == (True, False, {})


def test_the_sandbox_travels_with_the_order() -> None:
    """Every word of a sandbox arrives, between arguments and environment that look alike."""
    sandbox = Sandbox(network=False, read_only=True, writable=("/a=b", "/c"), limits=(("open_files", 9),))
    command = Command(argv=("a", "read_only"), env=(("no_network", "1"),), cwd="/", sandbox=sandbox)
    order = program.Order(encode(command, "/bin/a", 1.5))
    assert (order.argv, order.env) == ([b"a", b"read_only"], {b"no_network": b"1"})
    found = order.sandbox
    assert (found.network, found.read_only, found.writable) == (False, True, [b"/a=b", b"/c"])
    assert found.limits == {b"open_files": 9}
    with pytest.raises(ValueError, match="cannot understand a sandbox word"):
        program.Sandbox([b"everything"])


def test_it_needs_nothing_of_attestd() -> None:
    """The program loads in an isolated interpreter without site-packages, from any directory."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", program.__file__, "0", "1"], cwd="/", capture_output=True, check=False, timeout=10
    )
    assert (done.returncode, done.stderr) == (0, b"")  # its parent is not pid 1, so it leaves at once
