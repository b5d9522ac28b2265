"""attestd-connect with real sockets, pipes and processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from attestd import __version__, shim
from tests.support.shimming import LISTENER, Installation

F_SETPIPE_SZ = 1031
REQUEST = b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x"}}\n'
root_only = pytest.mark.root


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    """A temporary installation whose processes end with the test."""
    with ExitStack() as ended:
        yield Installation(tmp_path, ended)


def arrived(listener: socket.socket) -> socket.socket:
    """The shim's connection, untouched."""
    listener.settimeout(10)
    connection, _ = listener.accept()
    connection.settimeout(10)
    return connection


def offered(listener: socket.socket) -> tuple[socket.socket, list[int]]:
    """The shim's connection and the descriptors that it offers."""
    connection = arrived(listener)
    data, fds, _, _ = socket.recv_fds(connection, 16, 8)
    assert data == shim.OFFER
    assert len(fds) == 2
    return connection, fds


def accept(listener: socket.socket) -> socket.socket:
    """The shim's connection, with its offer declined: it relays."""
    connection, fds = offered(listener)
    for fd in fds:
        os.close(fd)
    connection.send(shim.DECLINED)
    return connection


def await_null(pid: int) -> None:
    """The shim has let go of the client's descriptors."""
    while Path(f"/proc/{pid}/fd/1").readlink() != Path("/dev/null"):
        time.sleep(0.005)


def fill(daemon: socket.socket, full: type[OSError]) -> None:
    """Send until nothing more is taken."""
    try:
        while True:
            daemon.send(b"x" * 65536)
    except full:
        return


def rejected(installed: Installation, *words: str, cause: str = "daemon_untrusted") -> str:
    """Run the shim with one request; its JSON-RPC error must have this cause. Returns the text."""
    process = installed.connect(*words)
    out, err = process.communicate(REQUEST, timeout=20)
    answer = json.loads(out)
    assert (answer["jsonrpc"], answer["id"], answer["error"]["code"]) == ("2.0", "a", -31403)
    assert answer["error"]["data"]["cause"] == cause
    assert answer["error"]["data"]["method"] == "tools/call"
    assert process.returncode == 5
    assert err.startswith(b"attestd-connect: error: ")
    text = answer["error"]["message"]
    assert isinstance(text, str)
    return text


def test_bytes_pass_unchanged_and_end_of_input_is_passed_on(installed: Installation) -> None:
    """What the client writes arrives; after its end of input the daemon may still answer; the exit code is 0."""
    listener = installed.listen()
    process = installed.connect()
    with accept(listener) as daemon:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(REQUEST)
        process.stdin.flush()
        assert daemon.recv(1000) == REQUEST
        process.stdin.close()
        assert daemon.recv(1000) == b""
        time.sleep(0.05)
        assert process.poll() is None
        daemon.sendall(b"late\n")
        daemon.close()
        assert process.stdout.read() == b"late\n"
        assert process.wait(10) == 0


def test_the_daemons_end_ends_the_shim(installed: Installation) -> None:
    """With standard input still open, the daemon's end of stream flushes what it sent and exits with 0."""
    listener = installed.listen()
    process = installed.connect()
    with accept(listener) as daemon:
        daemon.sendall(b"bye\n")
    assert process.stdout is not None
    assert process.stdout.read() == b"bye\n"
    assert process.wait(10) == 0


def test_large_messages_pass_both_ways_through_tiny_pipes(installed: Installation) -> None:
    """64 MiB each way at the same time, with 4 KiB pipes and readers that dawdle, arrive complete."""
    size = 64 << 20
    listener = installed.listen()
    process = installed.connect()
    assert process.stdin is not None
    assert process.stdout is not None
    for stream in (process.stdin, process.stdout):
        fcntl.fcntl(stream.fileno(), F_SETPIPE_SZ, 4096)
    seen: dict[str, str] = {}
    sent: dict[str, str] = {}

    def write(name: str, fd: int, seed: int) -> None:
        digest, left, source = hashlib.sha256(), size, random.Random(seed)
        while left:
            chunk = source.randbytes(min(left, source.choice((1, 4097, 65536, 1 << 20))))
            digest.update(chunk)
            left -= len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
        sent[name] = digest.hexdigest()

    def read(name: str, fd: int) -> None:
        digest, count = hashlib.sha256(), 0
        while chunk := os.read(fd, 65536):
            digest.update(chunk)
            count += 1
            if count % 256 == 0:
                time.sleep(0.001)
        seen[name] = digest.hexdigest()

    with accept(listener) as daemon:
        daemon.settimeout(None)
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        fds = process.stdin.fileno(), process.stdout.fileno()

        up = process.stdin

        def to_daemon() -> None:
            write("up", fds[0], 1)
            up.close()

        upwards = threading.Thread(target=read, args=("up", daemon.fileno()))

        def to_client() -> None:
            write("down", daemon.fileno(), 2)
            upwards.join()
            daemon.shutdown(socket.SHUT_WR)

        threads = [
            upwards,
            threading.Thread(target=to_daemon),
            threading.Thread(target=to_client),
            threading.Thread(target=read, args=("down", fds[1])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert seen == sent
    assert process.wait(10) == 0


def test_a_client_that_reads_nothing_does_not_hold_the_other_way(installed: Installation) -> None:
    """With standard output full, 8 MiB still pass from the client to the daemon, whole."""
    listener = installed.listen()
    process = installed.connect()
    assert process.stdin is not None
    payload = random.Random(3).randbytes(8 << 20)
    with accept(listener) as daemon:
        daemon.settimeout(0)
        fill(daemon, BlockingIOError)
        daemon.settimeout(10)
        up = process.stdin
        writer = threading.Thread(target=lambda: (up.write(payload), up.close()))
        writer.start()
        received = bytearray()
        while chunk := daemon.recv(1 << 16):
            received += chunk
        writer.join()
    assert received == payload


def test_a_client_with_sockets_for_stdio_is_served(installed: Installation) -> None:
    """Clients on libuv hand over socket pairs, here also non-blocking: 4 MiB pass both ways."""
    listener = installed.listen()
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    process = installed.connect(stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    payload = random.Random(5).randbytes(4 << 20)
    with ours, accept(listener) as daemon:

        def echo() -> None:
            data = bytearray()
            while len(data) < len(payload):
                data += daemon.recv(1 << 16)
            daemon.sendall(data)

        echoing = threading.Thread(target=echo)
        echoing.start()
        ours.settimeout(20)
        ours.sendall(payload)
        received = bytearray()
        while len(received) < len(payload):
            received += ours.recv(1 << 16)
        echoing.join()
        assert received == payload
        ours.shutdown(socket.SHUT_WR)
        assert daemon.recv(1) == b""
        daemon.close()
        assert process.wait(10) == 0


def test_stdio_is_left_blocking(installed: Installation) -> None:
    """The shim never sets O_NONBLOCK on a description that it shares with the client."""
    listener = installed.listen()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        installed.connect(stdin=theirs.fileno(), stdout=theirs.fileno())
        with accept(listener) as daemon:
            ours.sendall(b"x")
            assert daemon.recv(1) == b"x"
            assert not fcntl.fcntl(theirs.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK


def test_taken_descriptors_are_the_clients_own_and_nobody_elses(installed: Installation) -> None:
    """The shim steps aside: it holds neither end any more, and the client reads the end when the daemon ends."""
    listener = installed.listen()
    process = installed.connect()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"early ")
    process.stdin.flush()
    daemon, (source, sink) = offered(listener)
    with daemon:
        daemon.send(shim.TAKEN)
        process.stdin.write(b"late")
        process.stdin.close()
        data = b""
        while block := os.read(source, 100):
            data += block
        assert data == b"early late"
        os.write(sink, b"answer")
        os.close(sink)
        assert process.stdout.read() == b"answer"
        assert process.poll() is None
    assert process.wait(10) == 0
    os.close(source)


def test_what_a_daemon_says_instead_of_an_answer_reaches_the_client(installed: Installation) -> None:
    """A daemon that turns the connection away says so in JSON, and it is passed on."""
    listener = installed.listen()
    process = installed.connect()
    daemon, fds = offered(listener)
    for fd in fds:
        os.close(fd)
    with daemon:
        daemon.sendall(b'{"error":1}\n{"error":2}\n')
    assert process.communicate(timeout=10)[0] == b'{"error":1}\n{"error":2}\n'
    assert process.returncode == 0


def test_a_file_as_input_is_not_offered(installed: Installation, tmp_path: Path) -> None:
    """What cannot be watched is relayed."""
    listener = installed.listen()
    path = tmp_path / "in"
    path.write_bytes(REQUEST)
    with path.open("rb") as file:
        installed.connect(stdin=file.fileno())
    with arrived(listener) as daemon:
        assert daemon.recv(1 << 16) == REQUEST


@pytest.mark.parametrize("taken", [False, True])
def test_a_signal_while_the_daemon_thinks_ends_the_shim(installed: Installation, taken: bool) -> None:
    """Before and after the answer to its offer."""
    listener = installed.listen()
    process = installed.connect()
    daemon, fds = offered(listener)
    for fd in fds:
        os.close(fd)
    with daemon:
        if taken:
            daemon.send(shim.TAKEN)
            await_null(process.pid)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
        assert daemon.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("blocked", [False, True])
def test_a_signal_closes_the_connection(installed: Installation, number: signal.Signals, blocked: bool) -> None:
    """The daemon sees an end of stream, also when standard output is full; the exit code is 128 + number."""
    listener = installed.listen()
    process = installed.connect()
    assert process.stdin is not None
    with accept(listener) as daemon:
        process.stdin.write(b"x")
        process.stdin.flush()
        assert daemon.recv(1) == b"x"
        if blocked:
            daemon.settimeout(0.2)
            fill(daemon, TimeoutError)
            daemon.settimeout(10)
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        try:
            assert daemon.recv(1) == b""
        except ConnectionResetError:
            assert blocked


def test_a_client_that_closes_its_output_ends_the_shim(installed: Installation) -> None:
    """A broken pipe is an ordinary end: no traceback, exit code 0, and the daemon sees the end."""
    listener = installed.listen()
    process = installed.connect()
    assert process.stdout is not None
    assert process.stderr is not None
    with accept(listener) as daemon:
        process.stdout.close()
        daemon.sendall(b"x" * 100)
        assert process.wait(10) == 0
        assert daemon.recv(1) == b""
    assert process.stderr.read() == b""


def test_without_a_daemon_every_request_is_answered(installed: Installation) -> None:
    """Requests get the error on their own id until the end of input; notifications, answers and garbage get nothing."""
    process = installed.connect()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    assert first["id"] == 1
    assert first["error"]["code"] == -31403
    assert first["error"]["data"] == {
        "cause": "daemon_unreachable",
        "server": "time",
        "method": "initialize",
        "hint": "start it with: attestd run --user",
        "retry": True,
    }
    assert first["error"]["message"].endswith("\nstart it with: attestd run --user")
    assert process.poll() is None
    rest = (
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n{"jsonrpc":"2.0","id":3,"result":{}}\nnot json\n\n'
        + b"[" * 200000
        + b'\n{"jsonrpc":"2.0","id":true,"method":"m"}\n{"jsonrpc":"2.0","id":"\\u00e4\\n","method":"tools/list"}\n'
        b'[{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","method":"n"}]\n'
        b'{"jsonrpc":"2.0","id":9,"method":"last/without/newline"}'
    )
    out, err = process.communicate(rest, timeout=20)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer[0]["id"] if isinstance(answer, list) else answer["id"] for answer in answers] == ["ä\n", 7, 9]
    assert process.returncode == 5
    assert b"hint: start it with: attestd run --user" in err


def test_without_a_daemon_memory_is_bounded(installed: Installation) -> None:
    """A line of 40 MiB is skipped, not kept, and the request after it is answered."""
    process = installed.connect()
    assert process.stdin is not None
    for _ in range(40):
        process.stdin.write(b"x" * (1 << 20))
    process.stdin.flush()
    peak = next(
        int(line.split()[1])
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    out, _ = process.communicate(b"\n" + REQUEST, timeout=20)
    assert json.loads(out)["id"] == "a"
    assert peak < 64 << 10


def test_a_stale_socket_is_unreachable(installed: Installation) -> None:
    """A socket file that nobody listens on is answered as a daemon that is away, with the path."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(installed.socket))
    text = rejected(installed, cause="daemon_unreachable")
    assert str(installed.socket) in text
    assert "connection refused" in text


def test_a_program_that_is_not_attestd_is_refused_before_a_byte(installed: Installation) -> None:
    """Our interpreter running another script, or inline code, listens: nothing is sent to it."""
    source = LISTENER.split("\n", 1)[1]
    listener = installed.listen((sys.executable, "-c", source))
    text = rejected(installed)
    assert "runs -c, expected" in text
    with arrived(listener) as fake:
        assert fake.recv(100) == b""
    installed.socket.unlink()
    other = installed.script("attestd-too", LISTENER)
    installed.listen((str(other),))
    assert f"runs {other}, expected {installed.bin}/attestd" in rejected(installed)


def test_another_interpreter_is_refused(installed: Installation) -> None:
    """A listener whose executable is not our interpreter is refused, whatever its arguments say."""
    source = (
        "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Local => $ARGV[1], Listen => 1);"
        'open(my $f, ">&=", $ARGV[2]); print $f "."; close $f; <STDIN>;'
    )
    script = installed.bin / "attestd"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            ["/usr/bin/perl", "-e", source, str(script), str(installed.socket), str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        assert ours.recv(1) == b"."
    try:
        text = rejected(installed)
    finally:
        process.kill()
        process.communicate()
    assert "perl" in text
    assert f"expected {sys.executable}" in text


def test_a_listener_that_has_ended_is_refused(installed: Installation) -> None:
    """A socket inherited from an attestd that is dead proves nothing."""
    with ExitStack() as short:
        installed._ended, kept = short, installed._ended
        listener = installed.listen()
        held = os.dup(listener.fileno())
        installed._ended = kept
    with socket.socket(fileno=held):
        text = rejected(installed)
    assert "cannot trust the daemon" in text


def test_the_program_may_be_named_relatively_or_through_a_link(installed: Installation, tmp_path: Path) -> None:
    """``cd installation; bin/attestd`` and a symbolic link elsewhere are the same program, also from a linked shim."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "attestd").symlink_to(installed.bin / "attestd")
    (elsewhere / "attestd-connect").symlink_to(installed.bin / "attestd-connect")
    for command in (["sh", "-c", f'cd {tmp_path}; exec bin/attestd "$@"', "sh"], [str(elsewhere / "attestd")]):
        listener = installed.listen(command)
        for directory in (installed.bin, elsewhere):
            process = installed.connect(wrapper=("env", "--", f"PATH={directory}:{os.environ['PATH']}"))
            with accept(listener) as daemon:
                daemon.sendall(b"hello\n")
            assert process.communicate(timeout=10)[0] == b"hello\n"
        installed.socket.unlink()


@pytest.mark.parametrize("level", ["mcp", "attestd", "runtime"])
def test_a_directory_that_others_can_write_is_refused(installed: Installation, level: str) -> None:
    """Group- or world-writable directories on the way to the socket are refused, naming the directory and its mode."""
    installed.listen()
    directory = {"mcp": installed.mcp, "attestd": installed.mcp.parent, "runtime": installed.runtime}[level]
    directory.chmod(0o720)
    assert f"{directory} can be written by others than its owner, got mode 720" in rejected(installed)
    directory.chmod(0o1777)
    if level == "mcp":
        assert "got mode 1777" in rejected(installed)


def test_a_file_instead_of_a_socket_is_refused(installed: Installation) -> None:
    """Neither a regular file nor a symbolic link to a good socket is a socket."""
    installed.socket.write_text("")
    assert "is not a socket" in rejected(installed)
    installed.socket.unlink()
    installed.listen()
    link = installed.mcp / "other.sock"
    link.symlink_to(installed.socket)
    assert "other.sock is not a socket" in rejected(installed, "other")


def test_a_named_socket_is_verified_like_any_other(installed: Installation) -> None:
    """``--socket`` changes the place, not the rules: the right program is accepted, another one refused."""
    listener = installed.listen()
    process = installed.connect("other", "--socket", str(installed.socket))
    with accept(listener) as daemon:
        daemon.sendall(b"yes\n")
    assert process.communicate(timeout=10)[0] == b"yes\n"
    installed.socket.unlink()
    installed.listen((sys.executable, "-c", LISTENER.split("\n", 1)[1]))
    assert "runs -c" in rejected(installed, "other", f"--socket={installed.socket}")


@pytest.mark.root
@root_only
def test_a_socket_of_another_user_is_refused(installed: Installation) -> None:
    """A socket file that belongs to another uid is refused, with got and expected."""
    installed.listen()
    os.chown(installed.socket, 65534, 65534)
    assert "belongs to uid 65534, expected 0" in rejected(installed)


@pytest.mark.root
@root_only
def test_a_directory_of_another_user_is_refused(installed: Installation) -> None:
    """A directory on the way that belongs to another uid is refused."""
    installed.listen()
    os.chown(installed.mcp.parent, 65534, 65534)
    assert f"{installed.mcp.parent} belongs to uid 65534, expected 0" in rejected(installed)


@pytest.mark.root
@root_only
def test_a_listener_of_another_user_is_refused(installed: Installation) -> None:
    """The kernel's word on the listener's uid counts, not only the owner of the socket file."""
    installed.mcp.chmod(0o700)
    source = (
        "import os,sys,socket; os.chdir(os.path.dirname(sys.argv[1])); os.setuid(65534);"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(os.path.basename(sys.argv[1]));"
        "listener.listen(); socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b'.'], [listener.fileno()]);"
        "sys.stdin.read()"
    )
    os.chown(installed.mcp, 65534, 65534)
    installed.listen((sys.executable, "-c", source))
    os.chown(installed.mcp, 0, 0)
    os.chown(installed.socket, 0, 0)
    assert "runs as uid 65534, expected 0" in rejected(installed)


@pytest.mark.root
@root_only
def test_system_rules_accept_the_service_user(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """In system mode the owner of the service's directory, or root, may own the socket and listen; others may not."""
    monkeypatch.setattr(shim, "SYSTEM_DIR", str(installed.mcp.parent))
    installed.listen((sys.executable, "-c", LISTENER.split("\n", 1)[1]))
    for path in (installed.mcp.parent, installed.mcp, installed.socket):
        os.chown(path, 65534, 65534)
    target = shim.parse(["time", "--system"])
    assert target.system
    assert target.path == str(installed.socket)
    shim.verify_place(target)
    sock = shim.connect(target)
    shim.verify_peer(sock, target, "/nowhere")  # runs as root: PID 1 listens under socket activation
    sock.close()
    os.chown(installed.socket, 1, 1)
    with pytest.raises(shim.Away, match="belongs to uid 1, expected 0 or 65534"):
        shim.verify_place(target)


def test_a_daemon_that_has_no_such_server(installed: Installation) -> None:
    """Where the daemon's control socket is, the hint names the likelier reason first."""
    target = shim.Target("time", str(installed.socket), system=False, user=True)
    with pytest.raises(shim.Away, match="no such socket") as without:
        shim.reach(target)
    assert without.value.hint == "start it with: attestd run --user"
    (installed.mcp.parent / "control.sock").touch()
    with pytest.raises(shim.Away, match="no such socket") as beside:
        shim.reach(target)
    assert beside.value.hint == (
        'if it runs, it has no server "time" (attestctl servers list shows them); '
        "else start it with: attestd run --user"
    )


def test_a_service_that_is_away_is_knocked_for(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to its control socket starts it, and the shim goes on once it has spoken there; else it is away."""
    monkeypatch.setattr(shim, "SYSTEM_DIR", str(installed.mcp.parent))
    target = shim.Target("time", str(installed.socket), system=True, user=False)
    target.owners = target.daemons = (0, os.geteuid())
    with pytest.raises(shim.Away, match="no such socket"):
        shim.reach(target)

    def start(manager: socket.socket) -> None:
        with manager.accept()[0] as connection, socket.socket(socket.AF_UNIX) as service:
            service.bind(str(installed.socket))
            service.listen()
            connection.sendall(b"{")
            service.accept()[0].close()

    with socket.socket(socket.AF_UNIX) as manager:
        manager.bind(str(installed.mcp.parent / "control.sock"))
        manager.listen()
        starting = threading.Thread(target=start, args=(manager,))
        starting.start()
        shim.reach(target).close()
        starting.join()


def test_the_users_own_socket_comes_first(
    installed: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a choice: the user's socket if it is there, else the service if it is there, else the user's place."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(installed.runtime))
    monkeypatch.setattr(shim, "SYSTEM_DIR", str(tmp_path / "service"))
    assert shim.parse(["time"]).path == str(installed.socket)
    (tmp_path / "service").mkdir()
    assert shim.parse(["time"]).path == f"{tmp_path}/service/mcp/time.sock"
    assert shim.parse(["time"]).hint == "start it with: systemctl start attestd"
    installed.socket.write_text("")
    assert shim.parse(["time"]).path == str(installed.socket)
    assert shim.parse(["time", "--system"]).path == f"{tmp_path}/service/mcp/time.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert shim.parse(["time", "--user"]).path == f"/run/user/{os.geteuid()}/attestd/mcp/time.sock"


def test_a_server_of_ones_own_is_found_where_none_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the service: the server for everybody, else the one that is registered for this uid alone."""
    monkeypatch.setattr(shim, "SYSTEM_DIR", str(tmp_path))
    own = tmp_path / "mcp" / str(os.geteuid()) / "time.sock"
    own.parent.mkdir(parents=True)
    (tmp_path / "mcp" / "12345").mkdir()
    (tmp_path / "mcp" / "12345" / "notes.sock").write_text("")
    assert shim.parse(["time", "--system"]).path == f"{tmp_path}/mcp/time.sock"
    own.write_text("")
    assert shim.parse(["time", "--system"]).path == str(own)
    (tmp_path / "mcp" / "time.sock").write_text("")
    assert shim.parse(["time", "--system"]).path == f"{tmp_path}/mcp/time.sock"
    assert shim.parse(["notes", "--system"]).path == f"{tmp_path}/mcp/notes.sock"


def test_attestds_own_variables_do_not_redirect(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTESTD_RUNTIME_DIR in the environment moves nothing."""
    monkeypatch.setenv("ATTESTD_RUNTIME_DIR", "/tmp/elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(installed.runtime))
    assert shim.parse(["time", "--user"]).path == str(installed.socket)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a", "b"),
        ("Time",),
        (".time",),
        ("../time",),
        ("ti/me",),
        ("x" * 65,),
        ("ä",),
        ("",),
        ("time", "--nope"),
        ("time", "--socket"),
        ("time", "--socket="),
        ("time", "--user", "--system"),
    ],
)
def test_bad_words_are_usage_errors(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    """They exit with 2, explain themselves on standard error and print nothing on standard output."""
    assert shim.run(list(words), "attestd-connect") == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("attestd-connect: error: ")
    assert "usage: attestd-connect SERVER" in captured.err


def test_help_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    """``--help`` ends with a runnable example; ``--version`` is the package's."""
    assert shim.run(["--help"], "attestd-connect") == 0
    assert capfd.readouterr().out.endswith("  attestd-connect time\n")
    assert shim.run(["--version"], "attestd-connect") == 0
    assert capfd.readouterr().out == f"attestd-connect {__version__}\n"


def test_nothing_heavy_is_imported() -> None:
    """Importing the shim loads itself and the socket module, beyond what the interpreter has loaded anyway."""
    source = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); import attestd.shim;"
        "print(*sorted(set(sys.modules) - before))"
    )
    root = str(Path(shim.__file__).parents[1])
    out = subprocess.check_output([sys.executable, "-I", "-c", source, root], text=True)
    assert set(out.split()) <= {"_socket", "attestd", "attestd.shim"}
