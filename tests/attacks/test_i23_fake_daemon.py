"""I23: a fake socket, a stale socket, or a wrong program where attestd should be: shim and attestctl refuse it.

There is no daemon that could keep a record, so the contrast is what the impostor hears: a plain client tells it the
call, shim and attestctl tell it nothing and say why.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.errors import ExitCode
from tests.support.attackers import parsed, shots, until
from tests.support.instance import Instance, cause, on_the_machine

pytestmark = pytest.mark.attack("I23")

FAKE = '''\
"""Listens where attestd should, and writes down what it hears. argv: socket, file."""
import os, select, socket, sys

s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
os.write(1, b"ready")
heard = open(sys.argv[2], "ab", buffering=0)
ends = [0, s]
while True:
    for end in select.select(ends, [], [])[0]:
        if end == 0:
            sys.exit(0)
        if end is s:
            ends.append(s.accept()[0])
            continue
        data = end.recv(65536)
        heard.write(data)
        if not data:
            ends.remove(end)
'''

PERL = """\
use IO::Socket::UNIX;
my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 5) or die;
syswrite STDOUT, "ready";
sysread STDIN, my $end, 1;
"""


@pytest.fixture(name="instance")
def _instance(short_tmp: Path) -> Instance:
    """The directories of a daemon that does not run."""
    instance = on_the_machine(short_tmp)
    instance.socket().parent.mkdir(parents=True, mode=0o700)
    instance.control.parent.chmod(0o700)
    return instance


@contextmanager
def fake(instance: Instance, where: Path, *argv: str | Path) -> Iterator[Path]:
    """An impostor at a socket's path; the file with what it heard."""
    heard = instance.root / f"heard-{where.name}"
    heard.touch()
    words = [*(argv or (sys.executable, instance.script("fake.py", FAKE))), where, heard]
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.read(5) == b"ready"
        yield heard
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        where.unlink(missing_ok=True)


WAYS = ["another program", "the same name elsewhere", "inline code"]


def impostor(instance: Instance, which: str) -> list[str | Path]:
    """A program that listens in attestd's place."""
    if which == "inline code":
        return [sys.executable, "-c", FAKE]
    if which == "another program":
        return [sys.executable, instance.script("fake.py", FAKE)]
    (instance.root / "elsewhere").mkdir()
    return [sys.executable, instance.script("elsewhere/attestd", FAKE)]


@pytest.mark.parametrize("which", WAYS)
def test_the_shim_tells_an_impostor_nothing(instance: Instance, which: str):
    """A plain client tells the impostor its call; the shim tells the client why it does not."""
    talker = instance.talker()
    with fake(instance, instance.socket(), *impostor(instance, which)) as heard:
        plain = [sys.executable, str(talker), str(instance.socket())]
        with instance.client(argv=plain) as client:
            client.send_line(shots("plain").rstrip(b"\n"))
            until(lambda: b"plain" in heard.read_bytes(), "the impostor hearing the plain client")
        result = instance.run("attestd-connect", "echo", stdin=shots("secret").decode())
        answers = parsed(result.stdout)
        assert b"secret" not in heard.read_bytes()
    assert result.returncode == ExitCode.UNREACHABLE
    assert [answer["id"] for answer in answers] == [1, 2]
    assert {cause(answer) for answer in answers} == {"daemon_untrusted"}
    assert all(answer["error"]["data"]["retry"] is False for answer in answers)
    assert "cannot trust the daemon" in result.stderr


@pytest.mark.parametrize("which", WAYS)
def test_attestctl_tells_an_impostor_nothing(instance: Instance, which: str):
    """An approval that went to an impostor would tell it the code: attestctl proves the listener first."""
    with fake(instance, instance.control, *impostor(instance, which)) as heard:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(instance.control))
            plain.sendall(b"plain\n")
            until(lambda: b"plain" in heard.read_bytes(), "the impostor hearing the plain client")
        result = instance.run("attestctl", "approve", "7F3K-9QRT", "--all-tools", "--yes")
        assert b"7F3K" not in heard.read_bytes()
    assert result.returncode == ExitCode.UNREACHABLE
    assert "cannot trust" in result.stderr


def test_a_stale_socket(instance: Instance):
    """A socket that nobody listens on is an absent daemon, said so to the client, to be tried again."""
    for path in (instance.socket(), instance.control):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    result = instance.run("attestd-connect", "echo", stdin=shots("secret").decode())
    assert {cause(answer) for answer in parsed(result.stdout)} == {"daemon_unreachable"}
    assert result.returncode == ExitCode.UNREACHABLE
    assert instance.run("attestctl", "status").returncode == ExitCode.UNREACHABLE


@pytest.mark.parametrize("program", ["attestd-connect", "attestctl"])
def test_a_directory_that_others_may_write(instance: Instance, program: str):
    """Where everybody may put a socket, whatever is there is not trusted."""
    instance.socket().parent.chmod(0o777)
    instance.control.parent.chmod(0o777)
    where, words = (instance.socket(), ["echo"]) if program == "attestd-connect" else (instance.control, ["status"])
    with fake(instance, where) as heard:
        result = instance.run(program, *words, stdin=shots("secret").decode())
        assert heard.read_bytes() == b""
    assert result.returncode == ExitCode.UNREACHABLE


@pytest.mark.root
@pytest.mark.parametrize("program", ["attestd-connect", "attestctl"])
def test_a_socket_of_another_user(instance: Instance, program: str):
    """A listener of another uid is refused before it hears anything, whatever it runs."""
    instance.root.chmod(0o755)
    for directory in (instance.root / "r", instance.control.parent, instance.socket().parent):
        directory.chmod(0o777)
    where, words = (instance.socket(), ["echo"]) if program == "attestd-connect" else (instance.control, ["status"])
    script = instance.root / "fake.pl"
    script.write_text(PERL)
    with fake(instance, where, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "perl", script) as heard:
        for directory in (instance.socket().parent, instance.control.parent, instance.root / "r"):
            directory.chmod(0o755)
        result = instance.run(program, *words, stdin=shots("secret").decode())
        assert heard.read_bytes() == b""
    assert result.returncode == ExitCode.UNREACHABLE
    assert "65534" in result.stderr
