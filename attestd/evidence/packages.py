"""Pure readers of package records: dpkg md5sums and status, package.json, RECORD, METADATA, pyvenv.cfg.

Rules: bytes in, a small value out, None where the text does not say it. All of it may be the caller's own file, so
names and versions that are not of the usual shape are refused; what is returned is safe to show. Nothing here
believes anything.
"""

from __future__ import annotations

import base64
import binascii
import csv
import re
from typing import Final

import msgspec

_NPM_NAME: Final = re.compile(r"(?:@[A-Za-z0-9._~-]{1,100}/)?[A-Za-z0-9._~-]{1,214}")
_PYTHON_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:!_-]{0,127}")
_MD5: Final = re.compile(rb"[0-9a-f]{32}")


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A package's name and version, both of the usual shape."""

    name: str
    version: str


class PackageJson(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of a package.json."""

    package: Named | None
    """None where it has no proper name, as in a directory that only sets ``type``."""
    main: str


class _RawPackageJson(msgspec.Struct):
    name: msgspec.Raw = msgspec.Raw()
    version: msgspec.Raw = msgspec.Raw()
    main: msgspec.Raw = msgspec.Raw()


def md5_of(md5sums: bytes, path: str) -> str | None:
    """The MD5 that a dpkg md5sums file gives for ``path`` (without the first slash), lower-case hex."""
    needle = b"  " + path.encode("utf-8", "surrogateescape") + b"\n"
    at = md5sums.find(needle) if md5sums.endswith(b"\n") else (md5sums + b"\n").find(needle)
    if at < 32:
        return None
    digest = md5sums[at - 32 : at]
    starts_line = at == 32 or md5sums[at - 33] == 0x0A
    return digest.decode("ascii") if starts_line and _MD5.fullmatch(digest) else None


def dpkg_variants(path: str) -> tuple[str, ...]:
    """Names under which dpkg may know an absolute path, without the first slash: /usr/bin/x may be bin/x there."""
    relative = path.removeprefix("/")
    if relative.startswith("usr/") and _merged(relative[4:]):
        return relative, relative[4:]
    return (relative, "usr/" + relative) if _merged(relative) else (relative,)


def _merged(relative: str) -> bool:
    return relative.partition("/")[0] in {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"}


def dpkg_version(status: bytes, package: str) -> str | None:
    """The installed version of ``package`` (``name`` or ``name:architecture``) in dpkg's status file."""
    name, _, architecture = package.partition(":")
    start = b"Package: " + name.encode("utf-8", "surrogateescape") + b"\n"
    at = 0 if status.startswith(start) else status.find(b"\n" + start)
    while at >= 0:
        at += 0 if status.startswith(start, at) else 1
        end = status.find(b"\n\n", at)
        stanza = status[at : end if end >= 0 else len(status)].decode("utf-8", "replace")
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        installed = fields.get("Status", "").endswith(" installed")
        version = fields.get("Version", "")
        if installed and architecture in ("", fields.get("Architecture")) and _VERSION.fullmatch(version):
            return version
        at = status.find(b"\n" + start, at)
    return None


def package_json(raw: bytes) -> PackageJson | None:
    """Name, version and main of a package.json; None if it is no JSON object."""
    try:
        found = msgspec.json.decode(raw, type=_RawPackageJson)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    name, version, main = (_text(value) for value in (found.name, found.version, found.main))
    proper = _NPM_NAME.fullmatch(name) and _VERSION.fullmatch(version)
    return PackageJson(package=Named(name=name, version=version) if proper else None, main=main)


def _text(value: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=str) if bytes(value) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def record_digest(record: bytes, relative: str) -> str | None:
    """The SHA-256, lower-case hex, that a RECORD gives for ``relative`` (to where the dist-info directory lies)."""
    if relative.encode("utf-8", "surrogateescape") not in record:
        return None
    for line in record.decode("utf-8", "surrogateescape").splitlines():
        if relative not in line:
            continue
        fields = next(csv.reader((line,)), [])
        if len(fields) >= 2 and fields[0] == relative and fields[1].startswith("sha256="):
            return _unpadded_hex(fields[1].removeprefix("sha256="))
    return None


def named(name: str, version: str) -> Named | None:
    """A name and version of the usual shape of a distribution, else None."""
    proper = _PYTHON_NAME.fullmatch(name) and _VERSION.fullmatch(version)
    return Named(name=name, version=version) if proper else None


def _unpadded_hex(text: str) -> str | None:
    try:
        digest = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == 32 else None


def python_metadata(metadata: bytes) -> Named | None:
    """Name and version in the headers of a METADATA file."""
    headers = metadata.partition(b"\n\n")[0].decode("utf-8", "replace").splitlines()
    fields = dict(line.split(": ", 1) for line in reversed(headers) if ": " in line)
    return named(fields.get("Name", ""), fields.get("Version", ""))


def pyvenv(text: bytes) -> dict[str, str]:
    """Keys (lower case) and values of a pyvenv.cfg, as the interpreter's ``site`` reads them: the last one counts."""
    pairs = (line.partition("=") for line in text.decode("utf-8", "replace").splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
