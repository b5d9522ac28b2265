"""Whom a server runs as: the kernel's word on a client, a line of the account files, or a uid of its own.

Standard library only, and no name service: this runs where uids can be changed, and name services run other people's
code. Only the server's own process, once it has become the account, asks them for its home directory.

Rules
- A client is named by a pidfd. The kernel says which process that is, and it must be alive after its uids were read, so
  that they were its own. Its four uids and its four gids must be equal: who is in the middle of being somebody else is
  nobody's caller. Its groups are those that it has, not those that a file says.
- Root, the daemon and the launcher itself are never callers.
- An isolated uid belongs to one server and one caller for ever: it is written down before it is used, and never given
  to anybody else, so that nobody finds another's files.
"""
# ruff: noqa: PTH115, PTH123 - descriptors are the point

import fcntl
import os
import select
import sys

from attestd.launch.refusal import RefusedError

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

PIDFD_LINKS = ("anon_inode:[pidfd]", "pidfd:[", "pidfd:")
SHARED = -1
"""Stands for the caller of a shared server in the book of isolated uids."""


class Account:
    """A uid and what goes with it. ``name`` is empty where only the name service knows it."""

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], name: str = "", home: str = "/") -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.name = name
        self.home = home


def of_client(pidfd: int) -> Account:
    """The account of a live process. Raises RefusedError."""
    pid = pid_of(pidfd)
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError as error:
        raise RefusedError(f"its client, process {pid}, has gone") from error
    if exited(pidfd):
        raise RefusedError(f"its client, process {pid}, has gone")
    uids, gids = ({int(word) for word in status[key].split()} for key in ("Uid", "Gid"))
    if status["Tgid"].strip() != str(pid) or len(uids) != 1 or len(gids) != 1:
        raise RefusedError(f"its client, process {pid}, has several uids or gids at once, expected one of each")
    return Account(uids.pop(), gids.pop(), tuple(int(word) for word in status["Groups"].split()))


def pid_of(pidfd: int) -> int:
    """Which process a pidfd means. Raises RefusedError: it is none, or the process is gone or out of sight."""
    if not os.readlink(f"/proc/self/fd/{pidfd}").startswith(PIDFD_LINKS):
        raise RefusedError("the daemon sent no process where its client should be")
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        words = dict(line.split(":", 1) for line in file if ":" in line)
    pid = int(words.get("Pid", "-1"))
    if pid < 1:
        raise RefusedError("its client has gone")
    return pid


def exited(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def named(name: str, etc: str = "/etc") -> Account:
    """A local account with its groups. Raises RefusedError."""
    for line in _lines(f"{etc}/passwd"):
        if line[0] == name and len(line) >= 6:
            gid = int(line[3])
            groups = {int(each[2]) for each in _lines(f"{etc}/group") if len(each) >= 4 and name in each[3].split(",")}
            return Account(int(line[2]), gid, tuple(sorted(groups | {gid})), name, line[5] or "/")
    raise RefusedError(f"there is no account {name!r} in {etc}/passwd", "run_as = user:NAME takes local accounts only")


def _lines(path: str) -> list[list[str]]:
    """Fields of an account file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rstrip("\n").split(":") for line in file if line[:1] not in "#+-\n"]
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror}") from error


class IsolatedUids:
    """The book of uids: one line each, ``UID SERVER CALLER``, appended under a lock and synced before use."""

    def __init__(self, path: str, first: int, last: int) -> None:
        self._path = path
        self._first = first
        self._last = last

    def __contains__(self, uid: int) -> bool:
        return self._first <= uid <= self._last

    def account(self, server: str, caller: int) -> Account:
        """The uid of this pair, a new one if it has none. Raises RefusedError: none is left, or it cannot be kept."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "r+", encoding="ascii") as book:
                fcntl.flock(book, fcntl.LOCK_EX)
                text = book.read()
                taken = {line.partition(" ")[2]: int(line.split(" ")[0]) for line in text.splitlines()}
                uid = taken.get(f"{server} {caller}", 0)
                if not uid:
                    uid = max(taken.values(), default=self._first - 1) + 1
                    if uid > self._last:
                        raise RefusedError(f"no isolated uid is left of {self._first}-{self._last}")
                    book.write(("" if text.endswith("\n") or not text else "\n") + f"{uid} {server} {caller}\n")
                    book.flush()
                    os.fsync(fd)
        except (OSError, ValueError) as error:
            raise RefusedError(f"cannot keep the isolated uids in {self._path}: {error}") from error
        if uid not in self:
            raise RefusedError(f"its isolated uid {uid} is outside of {self._first}-{self._last}")
        return Account(uid, uid, ())
