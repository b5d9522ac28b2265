"""attestd-connect: the stdio shim that MCP clients start in place of a server.

It verifies the daemon, connects to the server's socket and relays bytes, both ways, as they are.

Rules
- Standard library only, and of it as little as possible: it starts once per client and server. Everything that is not
  on the way to the first byte (json, select) is imported where it is used.
- Not one byte passes before the daemon is verified: the socket's directories belong to root or to us (system mode: root
  or the service) and nobody else may write there; the socket and the process that listens on it belong to that same
  user; in user mode, where every process of the user could listen, that process is the ``attestd`` installed beside
  this shim, run by this very interpreter. What is not checked: a hostile process of the same user can run that program
  in an environment of its making; system mode is the cure.
- Standard output carries relayed bytes, or JSON-RPC errors while the daemon is away, and nothing else.
- Where standard input and output are pipes or socket pairs it offers both to the daemon with its first byte, and steps
  aside once they are taken: it then passes no byte, and waits for the daemon's end of stream.
- Otherwise one thread per direction, with blocking reads and writes: a full pipe one way never holds the other way, and
  nothing is buffered beyond one block.
- O_NONBLOCK is never set on standard input or output, which are shared with the client.
- End of input is passed on (the daemon may still answer); the daemon's end of stream ends the shim.
"""
# ruff: noqa: PLC0415, PTH110, PTH115, PTH116, PTH118, PTH119, PTH120, PTH123, SIM105 - each import costs more than the rest

import _signal  # type: ignore[import-not-found]  # the part of ``signal`` that needs no enum
import _socket
import _thread
import os
import sys

MACOS = sys.platform == "darwin"
SYSTEM_DIR = "/var/run/attestd" if MACOS else "/run/attestd"
START = "launchctl kickstart system/dev.attestd.daemon" if MACOS else "systemctl start attestd"
USAGE = "usage: attestd-connect SERVER [--socket PATH] [--system | --user]"
HELP = f"""{USAGE}

Connects an MCP client's standard input and output to SERVER through the attestd daemon.

  --socket PATH  the server's socket, instead of the usual place
  --user         only the daemon of this user ($XDG_RUNTIME_DIR/attestd/mcp/SERVER.sock)
  --system       only the system service ({SYSTEM_DIR}/mcp/SERVER.sock, else your own: {SYSTEM_DIR}/mcp/UID/SERVER.sock)
  --version      print the version
  --help         print this

Without --user or --system the user's own daemon is taken if it has a socket for SERVER, else the system service.

Example, as the command of an MCP server in a client's configuration:
  attestd-connect time
"""

NAME_FIRST = "abcdefghijklmnopqrstuvwxyz0123456789"
NAME_CHARACTERS = NAME_FIRST + "._-"
NAME_LENGTH, CONNECT_S = 64, 10
BLOCK_BYTES, LINE_BYTES = 1 << 17, 16 << 20
_TIMEVAL = CONNECT_S.to_bytes(8, sys.byteorder) + bytes(8)
OFFER = TAKEN = b"\0"
"""The first byte, when the descriptors come with it; no JSON text begins with it."""
DECLINED, REFUSED, EXIT_USAGE, EXIT_UNREACHABLE = b"\1", -31403, 2, 5

AF_UNIX = SOCK_STREAM = SCM_RIGHTS = 1
SO_PEERCRED, SO_PEERPIDFD, ENOPROTOOPT = 17, 77, 92
S_IFMT, S_IFIFO, S_IFSOCK, STICKY, OTHERS_WRITE = 0o170000, 0o010000, 0o140000, 0o1000, 0o022
INTERPRETER_FLAGS = (b"-I", b"-E", b"-P", b"-s", b"-B", b"-u")
"""Options without a value that a console script's interpreter may carry."""


class UsageError(Exception):
    """The words of the command are off."""


class Away(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """The daemon cannot be used; ``cause`` is ``daemon_unreachable`` or ``daemon_untrusted``."""

    def __init__(self, cause: str, text: str, hint: str) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text
        self.hint = hint


class Target:
    """Which socket, and by whose rules it is trusted."""

    def __init__(self, server: str, socket: str, system: bool, user: bool) -> None:
        self.server = server
        uid = os.geteuid()
        if socket:
            self.path = _resolved(socket)
            self.system = system or (not user and not _ours(self.path, uid))
        else:
            base = os.environ.get("XDG_RUNTIME_DIR", "")
            if not base.startswith("/"):
                from attestd.control.places import user_runtime

                base = user_runtime(uid)
            own = f"{base}/attestd/mcp/{server}.sock"
            self.system = system or (not user and not os.path.lexists(own) and os.path.lexists(SYSTEM_DIR))
            self.path = _resolved(f"{SYSTEM_DIR}/mcp/{server}.sock" if self.system else own)
            self.look()
        self.hint = "start it with: " + (START if self.system else "attestd run --user")
        self.owners = (0, _owner(SYSTEM_DIR)) if self.system else (0, uid)  # of the directories
        self.daemons = self.owners if self.system else (uid,)
        """Who may own the socket and listen on it."""

    def look(self) -> None:
        """Take the service's server for this user alone where there is none for everybody."""
        alone = f"{SYSTEM_DIR}/mcp/{os.geteuid()}/{self.server}.sock"
        if self.system and not os.path.lexists(self.path) and os.path.lexists(alone):
            self.path = _resolved(alone)


def _resolved(path: str) -> str:
    """The path with no symbolic link left in its directory: what is verified is what is connected to."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _owner(path: str) -> int:
    """Owner of a directory directly below one that only root may write; root if there is none."""
    try:
        return os.lstat(path).st_uid
    except OSError:
        return 0


def _ours(path: str, uid: int) -> bool:
    """Whether a socket that was named is judged as a user's own: not in the service's directory, and in one of ours."""
    if path.startswith(SYSTEM_DIR + "/"):
        return False
    try:
        return os.stat(os.path.dirname(path)).st_uid == uid
    except OSError:
        return True


def parse(words: list[str]) -> Target:
    """The command line. Raises UsageError."""
    server = socket = ""
    flags = {"--system": False, "--user": False}
    rest = iter(words)
    for word in rest:
        if word in flags:
            flags[word] = True
        elif word == "--socket" or word.startswith("--socket="):
            socket = next(rest, "") if word == "--socket" else word[9:]
            if not socket:
                raise UsageError("--socket needs a path")
        elif word.startswith("-"):
            raise UsageError(f"unknown option {word}")
        elif server:
            raise UsageError(f"one server expected, got also {word!r}")
        else:
            server = word
    if not server:
        raise UsageError("which server?")
    if len(server) > NAME_LENGTH or server[0] not in NAME_FIRST or any(c not in NAME_CHARACTERS for c in server):
        raise UsageError(
            f"cannot use {server!r} as a server name: [a-z0-9][a-z0-9._-]*, at most {NAME_LENGTH} characters"
        )
    if flags["--system"] and flags["--user"]:
        raise UsageError("--system and --user exclude each other")
    return Target(server, socket, flags["--system"], flags["--user"])


def verify_place(target: Target) -> None:
    """The socket and every directory above it belong to whom they must; nobody else may write there. Raises Away."""
    try:
        found = os.lstat(target.path)
        if found.st_mode & S_IFMT != S_IFSOCK:
            raise _untrusted(f"{target.path} is not a socket")
        if found.st_uid not in target.daemons:
            raise _untrusted(f"{target.path} belongs to uid {found.st_uid}, expected {_uids(target.daemons)}")
        directory = os.path.dirname(target.path)
        tolerated = 0
        while True:
            found = os.stat(directory)
            if found.st_uid not in target.owners:
                raise _untrusted(f"{directory} belongs to uid {found.st_uid}, expected {_uids(target.owners)}")
            if found.st_mode & OTHERS_WRITE and not found.st_mode & tolerated:
                mode = found.st_mode & 0o7777
                raise _untrusted(f"{directory} can be written by others than its owner, got mode {mode:o}")
            if directory == "/":
                return
            directory = os.path.dirname(directory)
            tolerated = STICKY
    except OSError as error:
        raise _unreachable(target, error) from error


def connect(target: Target) -> _socket.socket:
    """A connected socket, not yet verified. Raises Away."""
    sock = _socket.socket(AF_UNIX, SOCK_STREAM, 0)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _TIMEVAL)
        sock.connect(target.path)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, bytes(16))
    except OSError as error:
        sock.close()
        raise _unreachable(target, error) from error
    return sock


def reach(target: Target) -> _socket.socket:
    """A connected socket at a verified place; a service that is away is started by knocking. Raises Away."""
    try:
        verify_place(target)
        return connect(target)
    except Away as away:
        if not target.system or away.cause != "daemon_unreachable" or not target.path.startswith(SYSTEM_DIR):
            raise
    knock = _socket.socket(AF_UNIX, SOCK_STREAM, 0)
    try:
        knock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _TIMEVAL)
        knock.connect(f"{SYSTEM_DIR}/control.sock")
        knock.recv(1)  # its first word: it serves
    except OSError:
        pass  # nobody starts it: the second try says so
    knock.close()
    target.look()
    verify_place(target)
    return connect(target)


def verify_peer(sock: _socket.socket, target: Target, beside: str) -> None:
    """Who listens: the user of the socket and, in user mode, the program ``attestd`` in ``beside``. Raises Away."""
    if MACOS:
        from attestd.control.listening import objection

        if why := objection(sock, target.path, target.daemons, "" if target.system else beside):
            raise _untrusted(why)
        return
    credentials = sock.getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, 12)
    pid, uid = _integer(credentials[:4]), _integer(credentials[4:8])
    if uid not in target.daemons:
        raise _untrusted(f"the listener on {target.path} runs as uid {uid}, expected {_uids(target.daemons)}")
    if target.system:
        return
    held = -1
    try:
        held = _integer(sock.getsockopt(_socket.SOL_SOCKET, SO_PEERPIDFD, 4))
    except OSError as error:
        if error.errno != ENOPROTOOPT:
            raise _untrusted(f"the process that listens on {target.path} has ended") from error
    try:
        verify_program(pid, beside)
        if held >= 0:
            _signal.pidfd_send_signal(held, 0)
    except OSError as error:
        raise _untrusted(f"cannot see which program listens (pid {pid}): {error.strerror}") from error
    finally:
        if held >= 0:
            os.close(held)


def verify_program(pid: int, beside: str) -> None:
    """Process ``pid`` is the script ``attestd`` of directory ``beside``, run by our interpreter.

    Raises Away if it is another program, OSError if it cannot be seen.
    """
    process = f"/proc/{pid}"
    if not os.path.samestat(os.stat(f"{process}/exe"), os.stat("/proc/self/exe")):
        raise _untrusted(f"pid {pid} listens and runs {os.readlink(process + '/exe')}, expected {sys.executable}")
    with open(f"{process}/cmdline", "rb") as file:
        words = file.read().split(b"\0")[1:-1]
    while words and words[0] in INTERPRETER_FLAGS:
        del words[0]
    script = os.fsdecode(words[0]) if words else ""
    expected = f"{beside}/attestd"
    try:
        same = os.path.samestat(os.stat(os.path.join(f"{process}/cwd", script)), os.stat(expected))
    except (FileNotFoundError, NotADirectoryError):
        same = False
    if not same:
        raise _untrusted(f"pid {pid} listens and runs {script or 'no script'}, expected {expected}")


def serve(sock: _socket.socket) -> int:
    """Both directions until the daemon closes. Returns the exit code."""

    def end(number: int, _frame: object) -> None:
        try:
            sock.shutdown(_socket.SHUT_RDWR)
        finally:
            os._exit(128 + number)

    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, end)
    block = bytearray(BLOCK_BYTES)
    try:
        said = b""
        if not MACOS and _passable(0) and _passable(1):  # there they are never taken
            fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1))
            sock.sendmsg([OFFER], [(_socket.SOL_SOCKET, SCM_RIGHTS, fds)])
            said = bytes(memoryview(block)[: sock.recv_into(block)])
            if not said:
                return 0
            if said[:1] == TAKEN:
                return _stand_by(sock)
            if said[:1] == DECLINED:
                said = said[1:]
        return _relay(sock, block, said)
    except BrokenPipeError:
        return 0  # the client wants no more
    except OSError as error:
        complain(f"error: the connection to the daemon broke: {error.strerror}")
        return 1


def _passable(fd: int) -> bool:
    """Whether the daemon can use it in our place: a pipe or a socket."""
    try:
        return os.fstat(fd).st_mode & S_IFMT in (S_IFIFO, S_IFSOCK)
    except OSError:
        return False


def _stand_by(sock: _socket.socket) -> int:
    """The daemon has the client's descriptors; without our copies the client sees the end when the daemon ends."""
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    while sock.recv(1):
        pass
    return 0


def _relay(sock: _socket.socket, block: bytearray, said: bytes) -> int:
    """Pass the bytes ourselves, after those that the daemon has ``said`` already."""
    _thread.start_new_thread(_inwards, (sock,))
    write_all(1, said)
    view = memoryview(block)
    while size := sock.recv_into(block):
        write_all(1, view[:size])
    return 0


def _inwards(sock: _socket.socket) -> None:
    """Standard input to the daemon; its own thread, which leaves signals to the other one."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM))
    block = bytearray(BLOCK_BYTES)
    view = memoryview(block)
    try:
        while size := read_into(0, block):
            sock.sendall(view[:size])
    except OSError:
        pass  # a broken terminal is an end of input; a daemon that reads no more is seen by the other thread
    try:
        sock.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # closed by the daemon meanwhile


def read_into(fd: int, block: bytearray) -> int:
    """Bytes read; 0 at the end. Waits also where the client has made the description non-blocking."""
    while True:
        try:
            return os.readv(fd, [block])
        except BlockingIOError:
            _wait(fd, 1)


def write_all(fd: int, data: "memoryview | bytes") -> None:
    """Write everything, however little each write takes."""
    while len(data):
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            _wait(fd, 4)


def _wait(fd: int, events: int) -> None:
    """Until ``fd`` can be read (1) or written (4)."""
    import select

    poll = select.poll()
    poll.register(fd, events)
    poll.poll()


def answer_away(away: Away, server: str) -> int:
    """Answer every request with the error until the end of input. Returns the exit code."""
    complain(f"error: {away.text}\nhint: {away.hint}")
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, lambda signal, _frame: os._exit(128 + signal))
    block = bytearray(BLOCK_BYTES)
    rest = bytearray()
    skipping = False
    try:
        while size := read_into(0, block):
            start = len(rest)
            rest += memoryview(block)[:size]
            while (end := rest.find(b"\n", start)) >= 0:
                if not skipping:
                    write_all(1, refusals(bytes(rest[:end]), away, server))
                del rest[: end + 1]
                skipping, start = False, 0
            if len(rest) > LINE_BYTES:
                skipping = True
                rest.clear()
        if rest and not skipping:
            write_all(1, refusals(bytes(rest), away, server))
    except OSError:
        pass  # the client is gone
    return EXIT_UNREACHABLE


def refusals(line: bytes, away: Away, server: str) -> bytes:
    """One line of JSON-RPC errors for the requests in ``line``; empty if there are none."""
    import json

    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return b""
    found = [
        {"jsonrpc": "2.0", "id": one["id"], "error": _error(str(one["method"]), away, server)}
        for one in (message if isinstance(message, list) else [message])
        if isinstance(one, dict) and "method" in one and type(one.get("id")) in (int, str)
    ]
    if not found:
        return b""
    return json.dumps(found if isinstance(message, list) else found[0], separators=(",", ":")).encode() + b"\n"


def _error(method: str, away: Away, server: str) -> "dict[str, object]":
    """The error object of one refused request."""
    return {
        "code": REFUSED,
        "message": f'attestd refused {method} on "{server}": {away.text}\n{away.hint}',
        "data": {
            "cause": away.cause,
            "server": server,
            "method": method,
            "hint": away.hint,
            "retry": away.cause == "daemon_unreachable",
        },
    }


def _unreachable(target: Target, error: OSError) -> Away:
    reason, hint = (error.strerror or str(error)).lower(), target.hint
    if isinstance(error, FileNotFoundError):
        reason = "no such socket"
        if os.path.exists(os.path.join(os.path.dirname(target.path), "..", "control.sock")):
            hint = f'if it runs, it has no server "{target.server}" (attestctl servers list shows them); else {hint}'
    elif isinstance(error, BlockingIOError):
        reason = f"it accepts no connection within {CONNECT_S} s"
    return Away("daemon_unreachable", f"cannot reach the daemon at {target.path}: {reason}", hint)


def _untrusted(text: str) -> Away:
    return Away(
        "daemon_untrusted", f"cannot trust the daemon: {text}", "end whatever listens there, then start the daemon"
    )


def _uids(uids: "tuple[int, ...]") -> str:
    return " or ".join(str(uid) for uid in sorted(set(uids)))


def _integer(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def complain(text: str) -> None:
    """Say something on standard error."""
    try:
        os.write(2, f"attestd-connect: {text}\n".encode())
    except OSError:
        pass  # nobody to tell


def run(words: list[str], script: str) -> int:
    """The whole shim. ``script`` is the path of the program that runs. Returns the exit code."""
    if "--help" in words or "-h" in words:
        write_all(1, HELP.encode())
        return 0
    if "--version" in words:
        from attestd import __version__

        write_all(1, f"attestd-connect {__version__}\n".encode())
        return 0
    try:
        target = parse(words)
    except UsageError as error:
        complain(f"error: {error}\n{USAGE}")
        return EXIT_USAGE
    try:
        sock = reach(target)
        verify_peer(sock, target, os.path.dirname(os.path.realpath(script)))
    except Away as away:
        return answer_away(away, target.server)
    return serve(sock)


def main() -> None:
    """Entry point of the console script; leaves at once, without waiting for the thread that reads standard input."""
    os._exit(run(sys.argv[1:], sys.argv[0]))


if __name__ == "__main__":
    main()
