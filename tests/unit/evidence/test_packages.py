"""Readers of package records: what they find, and that odd or hostile text gives nothing."""

from __future__ import annotations

import pytest

from attestd.evidence import packages

A, B = "a" * 32, "b" * 32
MD5SUMS = f"{A}  bin/tool\n{B}  usr/share/doc/tool/a b\n".encode()

STATUS = b"""Package: tool-extra
Status: install ok installed
Architecture: all
Version: 7

Package: tool
Status: deinstall ok config-files
Architecture: i386
Version: 0.9

Package: tool
Status: install ok installed
Architecture: amd64
Version: 2:1.0-3
Description: short
 Version: 666
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("bin/tool", A), ("usr/share/doc/tool/a b", B), ("tool", None), ("bin/too", None), ("in/tool", None), ("", None)],
)
def test_md5_of(path: str, expected: str | None):
    """Only a whole path on its own line has a digest."""
    assert packages.md5_of(MD5SUMS, path) == expected


@pytest.mark.parametrize("raw", [b"", b"short  x\n", b"Z" * 32 + b"  x\n", b"1" + b"a" * 32 + b"  x\n"])
def test_md5_of_odd_lines(raw: bytes):
    """A line that does not begin with 32 hex digits gives nothing."""
    assert packages.md5_of(raw, "x") is None


def test_md5_of_a_last_line_without_line_feed():
    """The last line counts too."""
    assert packages.md5_of(f"{A}  x".encode(), "x") == A


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/dash", ("usr/bin/dash", "bin/dash")),
        ("/bin/dash", ("bin/dash", "usr/bin/dash")),
        ("/usr/lib/x/y", ("usr/lib/x/y", "lib/x/y")),
        ("/usr/share/x", ("usr/share/x",)),
        ("/opt/x", ("opt/x",)),
    ],
)
def test_dpkg_variants(path: str, expected: tuple[str, ...]):
    """Merged /usr gives two names to programs and libraries only."""
    assert packages.dpkg_variants(path) == expected


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("tool", "2:1.0-3"),
        ("tool:amd64", "2:1.0-3"),
        ("tool:i386", None),
        ("tool-extra", "7"),
        ("too", None),
        ("", None),
    ],
)
def test_dpkg_version(package: str, expected: str | None):
    """The installed stanza of the right architecture gives the version; continuation lines do not."""
    assert packages.dpkg_version(STATUS, package) == expected


def test_package_json():
    """Name, version and main are read; what is missing is empty."""
    found = packages.package_json(b'{"name": "@a/b", "version": "1.0.0", "main": "x.js", "more": [1]}')
    assert found is not None
    assert (found.package, found.main) == (packages.Named(name="@a/b", version="1.0.0"), "x.js")
    found = packages.package_json(b'{"type": "module", "main": 5}')
    assert found is not None
    assert (found.package, found.main) == (None, "")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"main": "\\ud800"}', b'{"x":' * 100_000, b"[" * 1_000_000],
)
def test_no_package_json(raw: bytes):
    """What is no JSON object gives nothing, whatever its depth."""
    found = packages.package_json(raw)
    assert found is None or found.package is None


@pytest.mark.parametrize("name", ["../evil", "a b", "a\x1b[0m", "", "@a", "a" * 300])
def test_odd_npm_names_are_refused(name: str):
    """A name that is not of npm's shape is not shown to anybody."""
    text = packages.msgspec.json.encode({"name": name, "version": "1"})
    found = packages.package_json(text)
    assert found is not None
    assert found.package is None


HEX = "ab" * 32
RECORD = b"""tool/__init__.py,sha256=q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,0
"tool/a,b.py",sha256=q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,1
../../../bin/tool,sha256=q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,9
tool/short.py,sha256=q6ur,1
tool/md5.py,md5=q6ur,1
tool/bad.py,sha256=!!!!,1
tool/RECORD,,
"""


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ("tool/__init__.py", HEX),
        ("tool/a,b.py", HEX),
        ("../../../bin/tool", HEX),
        ("bin/tool", None),
        ("tool/short.py", None),
        ("tool/md5.py", None),
        ("tool/bad.py", None),
        ("tool/RECORD", None),
        ("nothing", None),
    ],
)
def test_record_digest(relative: str, expected: str | None):
    """Only a whole name with a whole SHA-256 has a digest."""
    assert packages.record_digest(RECORD, relative) == expected


def test_python_metadata():
    """The first Name and Version of the headers count; the body does not."""
    raw = b"Metadata-Version: 2.1\nName: tool\nName: evil\nVersion: 1.2\n\nVersion: 9\n"
    assert packages.python_metadata(raw) == packages.Named(name="tool", version="1.2")
    assert packages.python_metadata(b"Name: \x1b[0m\nVersion: 1\n\n") is None
    assert packages.python_metadata(b"") is None


def test_pyvenv():
    """Keys are read as Python's site does: lower case, blanks off, the last one counts."""
    text = b"home = /usr/bin\nInclude-System-Site-Packages = False\nhome=/opt\nnonsense\n"
    assert packages.pyvenv(text) == {"home": "/opt", "include-system-site-packages": "False"}
