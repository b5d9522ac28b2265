"""Who vouches for a file: dpkg, a Python distribution, an npm package, or the label of a snap or flatpak.

Rules: *verified* means that the content has the digest which the package's own record gives for this path, and that
nobody but root can write that record. dpkg keeps MD5 only and none for configuration files; MD5 resists a second
preimage, which is what replacing a file needs. Diverted files are looked up under their own path and so do not match.
RECORD keeps SHA-256; in a place that the caller can write it vouches for nothing, and the detail says so. A
package.json has no digest and never verifies. Paths of snaps and flatpaks are labels. rpm has no reader here: its
files have no origin.

What was read through a descriptor must have the SHA-256 of the facts, so the two digests are of one content. A file
or record that is missing, unreadable or changing has no origin; nothing is raised. Remembered is only which package
lists a path and whether the content matched, for as long as dpkg's status file is the same; never the list of paths.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from attestd.evidence import packages
from attestd.evidence.model import FileFacts, Origin

_SITES = frozenset({"site-packages", "dist-packages"})
_DPKG_TOPS = frozenset({"bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "srv", "usr", "var"})
_JS_SUFFIXES = (".js", ".cjs", ".mjs", ".jsx", ".ts", ".cts", ".mts", ".tsx", ".json", ".node")
_MAX_RECORD_BYTES = 16 << 20
_MAX_STATUS_BYTES = 64 << 20
_MAX_DIRECTORY = 4096
_MAX_DEPTH = 40
_BLOCK = 1 << 20
_O_PATH = 0o10000000
_GROUP_OR_OTHER_WRITE = 0o022


class _Listed(msgspec.Struct, frozen=True):
    """One path in a dpkg md5sums file."""

    database: str
    package: str
    version: str
    matches: bool


class Origins:
    """Answers for the machine below ``root``. One per daemon; safe for several threads.

    Args:
        root: directory that stands for ``/``; a path of facts may be given with or without it in front.
        entries: dpkg answers remembered at most.
    """

    def __init__(self, root: str = "/", *, entries: int = 1024) -> None:
        self._root = root.rstrip("/")
        self._entries = entries
        self._lock = threading.Lock()
        self._generation: tuple[int, int, int] | None = None
        self._dpkg: OrderedDict[tuple[str, str], _Listed | None] = OrderedDict()

    def of_file(self, facts: FileFacts, fd: int | None = None) -> Origin | None:
        """The origin of the file that ``facts`` were read from.

        Args:
            facts: with a path that is absolute and a digest; a deleted file and a memfd have no origin.
            fd: the same file, open for reading; its offset is not moved. Without it the path is opened again, and must
                lead to the same inode and content.
        """
        if facts.sha256 is None or facts.deleted or facts.memfd or not facts.path.startswith("/"):
            return None
        label = facts.path.removeprefix(self._root) if self._inside(facts.path) else facts.path
        try:
            return (
                self._of_dpkg(facts, label, fd)
                or self._of_python(facts, label)
                or self._of_npm(label)
                or _of_label(label)
            )
        except (OSError, ValueError):
            return None

    def _inside(self, path: str) -> bool:
        return bool(self._root) and path.startswith(self._root + "/")

    def _at(self, label: str) -> str:
        return self._root + label

    # dpkg

    def _of_dpkg(self, facts: FileFacts, label: str, fd: int | None) -> Origin | None:
        if "\n" in label or label.split("/")[1] not in _DPKG_TOPS or label.startswith("/usr/local/"):
            return None
        try:
            found = os.stat(self._at("/var/lib/dpkg/status"))
        except OSError:
            return None
        key = (label, facts.sha256 or "")
        with self._lock:
            generation = (found.st_ino, found.st_mtime_ns, found.st_size)
            if generation != self._generation:
                self._generation = generation
                self._dpkg.clear()
            known = key in self._dpkg
            listed = self._dpkg.get(key)
            if known:
                self._dpkg.move_to_end(key)
        if not known:
            listed = self._search_dpkg(facts, label, fd)
            with self._lock:
                self._dpkg[key] = listed
                while len(self._dpkg) > self._entries:
                    self._dpkg.popitem(last=False)
        return self._dpkg_origin(facts, listed) if listed else None

    def _dpkg_origin(self, facts: FileFacts, listed: _Listed) -> Origin:
        detail = ""
        if not listed.matches:
            detail = "content differs from the package's digest"
        elif not self._only_root_writes(listed.database):
            detail = "digest matches, but others than root can write the package database"
        elif facts.owner_uid != 0:
            detail = "digest matches, but the file does not belong to root"
        return Origin(kind="dpkg", name=listed.package, version=listed.version, verified=not detail, detail=detail)

    def _search_dpkg(self, facts: FileFacts, label: str, fd: int | None) -> _Listed | None:
        """The package whose digest fits; if none fits, the first that lists the path; None if none does."""
        content = ""
        other: _Listed | None = None
        variants = packages.dpkg_variants(label)
        for database, raw in self._md5sums():
            expected = next((md5 for name in variants if (md5 := packages.md5_of(raw, name))), None)
            if expected is None:
                continue
            content = content or self._content_md5(facts, label, fd)
            package = os.path.basename(database).removesuffix(".md5sums")
            status = _read(self._at("/var/lib/dpkg/status"), _MAX_STATUS_BYTES)
            version = packages.dpkg_version(status, package)
            if version is None:
                continue
            listed = _Listed(database, package.partition(":")[0], version, expected == content)
            if listed.matches:
                return listed
            other = other or listed
        return other

    def _md5sums(self) -> Iterator[tuple[str, bytes]]:
        directory = "/var/lib/dpkg/info"
        for name in os.listdir(self._at(directory)):
            if name.endswith(".md5sums"):
                try:
                    yield f"{directory}/{name}", _read(self._at(f"{directory}/{name}"), _MAX_RECORD_BYTES)
                except OSError:
                    continue

    def _content_md5(self, facts: FileFacts, label: str, fd: int | None) -> str:
        """MD5 of exactly the content that the facts' SHA-256 is of. Raises OSError where that cannot be had."""
        opened = self._open_same(facts, label) if fd is None else fd
        try:
            md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
            offset = 0
            while block := os.pread(opened, _BLOCK, offset):
                md5.update(block)
                sha256.update(block)
                offset += len(block)
                if offset > facts.size:
                    break
        finally:
            if fd is None:
                os.close(opened)
        if sha256.hexdigest() != facts.sha256:
            raise OSError("cannot find the origin: the content is no longer that of the facts")
        return md5.hexdigest()

    def _open_same(self, facts: FileFacts, label: str) -> int:
        handle = os.open(self._at(label), _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (facts.dev, facts.ino):
                raise OSError("cannot find the origin: the path leads to another file")
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(handle)

    def _only_root_writes(self, label: str) -> bool:
        """Whether root alone can change the file or put another in its place, up to our root."""
        while True:
            found = os.lstat(self._at(label) or "/")
            if found.st_uid != 0 or (found.st_mode & _GROUP_OR_OTHER_WRITE and not _sticky(found)):
                return False
            if label in ("", "/"):
                return True
            label = os.path.dirname(label)

    # Python

    def _of_python(self, facts: FileFacts, label: str) -> Origin | None:
        for site in self._sites(label):
            relative = os.path.relpath(label, site)
            for name in self._dist_infos(site):
                record = f"{site}/{name}/RECORD"
                try:
                    digest = packages.record_digest(_read(self._at(record), _MAX_RECORD_BYTES), relative)
                    named = packages.python_metadata(_read(self._at(f"{site}/{name}/METADATA"), _MAX_RECORD_BYTES))
                except OSError:
                    continue
                if digest is not None and named is not None:
                    return self._python_origin(facts, record, digest, named)
        return None

    def _python_origin(self, facts: FileFacts, record: str, digest: str, named: packages.Named) -> Origin:
        detail = ""
        if digest != facts.sha256:
            detail = "content differs from RECORD"
        elif facts.writable or not self._only_root_writes(record):
            detail = "digest matches RECORD, but the caller can write it"
        return Origin(kind="python", name=named.name, version=named.version, verified=not detail, detail=detail)

    def _sites(self, label: str) -> Iterator[str]:
        """Site directories that may list the file, nearest first: above it, or beside the ``bin`` it lies in."""
        directory = os.path.dirname(label)
        for above in _upwards(directory):
            if os.path.basename(above) in _SITES:
                yield above
        if os.path.basename(directory) not in ("bin", "sbin"):
            return
        prefix = os.path.dirname(directory)
        for library in ("lib", "lib64"):
            for name in self._names(f"{prefix}/{library}"):
                if name.startswith(("python", "pypy")):
                    yield from (f"{prefix}/{library}/{name}/{site}" for site in sorted(_SITES))

    def _dist_infos(self, site: str) -> list[str]:
        return [name for name in self._names(site) if name.endswith(".dist-info")]

    def _names(self, label: str) -> list[str]:
        try:
            with os.scandir(self._at(label)) as found:
                return sorted(entry.name for _, entry in zip(range(_MAX_DIRECTORY), found, strict=False))
        except OSError:
            return []

    # npm

    def _of_npm(self, label: str) -> Origin | None:
        installed = "/node_modules/" in label
        if not installed and not label.endswith(_JS_SUFFIXES):
            return None
        for directory in _upwards(os.path.dirname(label)):
            if os.path.basename(directory) == "node_modules":
                return None
            try:
                found = packages.package_json(_read(self._at(directory + "/package.json"), _BLOCK))
            except OSError:
                continue
            if found is not None and found.package is not None:
                return Origin(
                    kind="npm",
                    name=found.package.name,
                    version=found.package.version,
                    verified=False,
                    detail="no registry digest on this machine",
                )
        return None


def _of_label(label: str) -> Origin | None:
    parts = label.split("/")
    if parts[1] == "snap" and len(parts) > 4:
        return _labelled("snap", parts[2], parts[3])
    if "flatpak" in parts:
        after = parts[parts.index("flatpak") + 1 :]
        if after[:1] in (["app"], ["runtime"]) and len(after) > 5:
            return _labelled("flatpak", after[1], after[3])
    return None


def _labelled(kind: str, name: str, version: str) -> Origin | None:
    named = packages.named(name, version)
    if named is None:
        return None
    return Origin(kind=kind, name=named.name, version=named.version, verified=False, detail="by its path only")


def _upwards(directory: str) -> Iterator[str]:
    for _ in range(_MAX_DEPTH):
        if directory in ("", "/"):
            return
        yield directory
        directory = os.path.dirname(directory)


def _sticky(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)


def _read(path: str, limit: int) -> bytes:
    """A whole regular file. Raises OSError, also where it is larger than ``limit`` bytes."""
    handle = os.open(path, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("cannot read a package record: not a regular file")
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)
    with open(fd, "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise OSError("cannot read a package record: too large")
    return raw
