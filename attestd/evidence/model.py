"""Evidence: raw facts about a peer and its ancestors, as one consistent snapshot. Nothing here is believed yet.

Rules: every struct is frozen; a fact that could not be read is ``None`` with its reason in ``gaps``, never a default
that looks like a value; paths are labels, digests come from open descriptors. Sizes are bytes, times are nanoseconds
since the epoch unless the name says otherwise (``start_ticks``: clock ticks since boot, as in /proc/PID/stat field
22).
"""

from __future__ import annotations

import msgspec

from attestd.evidence.tcp import TcpPeer


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One file, read through an open descriptor."""

    path: str
    """Label only: what the kernel printed."""
    sha256: str | None
    """Lower-case hex of the whole content; None if it could not be read."""
    dev: int
    ino: int
    size: int
    mode: int
    owner_uid: int
    owner_gid: int
    ctime_ns: int
    fs: str
    """Name of the file system: ext4, tmpfs, overlay, fuse, memfd, …"""
    deleted: bool = False
    memfd: bool = False
    writable: bool = True
    """Whether the *caller* (the link's uid and groups, without capabilities) may write the file or replace it through
    one of the directories above it. uid 0 counts by ownership and mode: root-owned and not group- or other-writable
    is not
    writable."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who vouches for a file."""

    kind: str
    """dpkg | rpm | npm | python | snap | flatpak | codesign"""
    name: str
    version: str
    verified: bool
    """The package's own digest of this file equals the content and its database is not writable by the caller."""
    detail: str = ""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What an interpreter runs."""

    kind: str
    """script | module | inline | stdin | unresolved | none (interactive: no code was named)"""
    interpreter: str
    """Family: node python ruby perl java deno bun php shell"""
    name: str = ""
    """Module name, or the argument as it was given."""
    sha256: str | None = None
    """Of the file, of the inline text (UTF-8 as in argv), None for stdin, unresolved and none."""
    text: str = ""
    """The inline text, at most 4096 characters; empty otherwise."""
    file: FileFacts | None = None
    origin: Origin | None = None
    younger_than_process: bool = False
    """The file's ctime is not older than the process: it may not be what was loaded."""


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """Inode numbers of the link's namespaces and whether they are the daemon's own. None: unreadable."""

    user: int | None
    pid: int | None
    mnt: int | None
    ours_user: bool | None
    ours_pid: bool | None
    ours_mnt: bool | None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the chain: the peer (index 0) or an ancestor."""

    pid: int
    start_ticks: int
    pidfs_ino: int | None
    ppid: int
    uids: tuple[int, int, int, int]
    """Real, effective, saved, file-system uid."""
    gids: tuple[int, int, int, int]
    comm: str
    argv: tuple[str, ...]
    """The process's own words (surrogateescape-free: invalid bytes are U+FFFD); at most 64 arguments of 4096
    characters."""
    exe: FileFacts | None
    origin: Origin | None
    script: Script | None
    """None: the image is not an interpreter."""
    namespaces: Namespaces
    tracer_pid: int
    tty: str | None
    """For example pts/3."""
    session: int
    cgroup: str
    posture: tuple[str, ...] = ()
    """Preloads and their like, each ``NAME`` or ``NAME=value`` shortened, e.g. ``env LD_PRELOAD``, ``map /x/evil.so``,
    ``argv --require``. Sorted. Present means seen; absence proves nothing."""
    gaps: tuple[str, ...] = ()
    """What could not be read and why, e.g. ``exe: permission denied``."""
    reparented: bool | None = False
    """Whether the process named by ``ppid`` did *not* start this one, because the true parent has exited. True:
    proved, the chain ends here as ``broken``. None: cannot be told, for the parent is pid 1 or a systemd instance,
    which adopt orphans and start services alike; a double fork with setsid looks like this, so a link that is not
    EDGE counts as an orphan's. False: no sign of it (a subreaper other than these cannot be seen)."""
    recorded: bool = False
    """The kernel recorder confirms image and parent of this link."""
    dead: bool = False
    """Known from the recorder only: the process has exited."""
    forged: str = ""
    """The path that /proc/PID/exe shows although the recorder saw another file executed; ``exe`` is None then."""
    unrecorded: str = ""
    """Why a running recorder does not confirm this link; empty if it does or if there is none."""
    environ_cut: bool = False
    """The recorded environment is not whole: a variable may be missing from ``posture``."""


class InputHolders(msgspec.Struct, frozen=True, kw_only=True):
    """Who can write to the standard input of a relay (pipe or socket pair): pids other than the relay itself."""

    kind: str
    """pipe | socket | file | tty | none | unknown"""
    pids: tuple[int, ...]
    complete: bool
    """False: some process could not be looked at."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's word on the connector, from the socket."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    security_label: str | None
    source: str
    """peerpidfd | proved | pid-only | pid (not from a socket: inspection) | tcp (see ``Evidence.tcp``)"""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was collected about one caller."""

    peer: Peer
    chain: tuple[Link, ...]
    """chain[0] is the peer; then parent by parent."""
    end: str
    """Why the chain stops: init (pid 1 reached) | broken (a parent has exited: orphan) | limit (32 links) |
    namespace (the parent is outside our pid namespace) | unreadable"""
    boot_id: str
    recorder: str
    """absent | on | … : state of the kernel recorder, with its reason in ``recorder_reason``."""
    recorder_reason: str
    exe_forgeable: bool
    """Unprivileged user namespaces are allowed here, so /proc/PID/exe can be forged
    (docs/evidence/exe-forgeability.md)."""
    collected_ns: int
    input: InputHolders | None = None
    proven_upto: int = -1
    """Index of the outermost link for which the recorder proves that nothing older than the images of now can wait in
    the connection or in the standard input of a relay; -1: not even for the peer."""
    proven_reason: str = ""
    """Why it ends there."""
    tcp: TcpPeer | msgspec.UnsetType = msgspec.UNSET
    """How the peer of a TCP connection was found; left out on a Unix socket."""
