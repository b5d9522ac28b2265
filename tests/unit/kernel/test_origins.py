"""Who vouches for a file: this machine's own packages, and tampered copies of the records below another root."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.evidence.model import FileFacts
from attestd.kernel.linux.origins import Origins

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="dpkg and openat are Linux's")

DPKG = Path("/var/lib/dpkg/status")
ROOT = os.geteuid() == 0
needs_dpkg = pytest.mark.skipif(not DPKG.exists(), reason="no dpkg on this machine")


def facts_of(at: Path, *, writable: bool = False, sha256: str | None = None, **changed: object) -> FileFacts:
    """Facts of a file as they are, with the answer on writing given."""
    found = at.stat()
    values: dict[str, object] = {
        "path": str(at),
        "sha256": sha256 or hashlib.sha256(at.read_bytes()).hexdigest(),
        "dev": found.st_dev,
        "ino": found.st_ino,
        "size": found.st_size,
        "mode": found.st_mode,
        "owner_uid": found.st_uid,
        "owner_gid": found.st_gid,
        "ctime_ns": found.st_ctime_ns,
        "fs": "ext4",
        "writable": writable,
        **changed,
    }
    return FileFacts(**values)  # type: ignore[arg-type]


def dash() -> Path:
    """The package-owned file that most tests look at."""
    return Path(os.path.realpath("/usr/bin/dash"))


def fake_root(root: Path, *, content: bytes = b"#!/bin/sh\n", listed: str = "bin/tool", md5: str | None = None) -> Path:
    """A root with one dpkg package that lists one file; returns the file."""
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    for directory in (root, root / "var", root / "var/lib", root / "var/lib/dpkg", info):
        directory.chmod(0o755)
    file = root / "usr/bin/tool"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    digest = md5 or hashlib.md5(content).hexdigest()
    (info / "other.md5sums").write_text(f"{'0' * 32}  bin/tool-other\n", encoding="utf-8")
    (info / "tool:amd64.md5sums").write_text(f"{'1' * 32}  bin/a\n{digest}  {listed}\n", encoding="utf-8")
    (root / "var/lib/dpkg/status").write_text(
        "Package: toolbox\nStatus: install ok installed\nArchitecture: all\nVersion: 9\n\n"
        "Package: tool\nStatus: install ok installed\nArchitecture: i386\nVersion: 1\n\n"
        "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2:1.0-3\n",
        encoding="utf-8",
    )
    for made in info.iterdir():
        made.chmod(0o644)
    return file


def site(root: Path, *, script: bytes = b"#!/bin/python\n", record: bytes | None = None) -> Path:
    """A Python prefix with one distribution whose RECORD lists a console script; returns the script."""
    tool = root / "bin/tool"
    tool.parent.mkdir(parents=True)
    tool.write_bytes(script)
    info = root / "lib/python3.11/site-packages/tool-1.2.dist-info"
    info.mkdir(parents=True)
    digest = base64.urlsafe_b64encode(hashlib.sha256(record if record is not None else script).digest()).rstrip(b"=")
    (info / "RECORD").write_text(
        f"tool/__init__.py,sha256=AAAA,1\n../../../bin/tool,sha256={digest.decode()},14\ntool-1.2.dist-info/RECORD,,\n",
        encoding="utf-8",
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tool\nVersion: 1.2\n\nName: evil\n", encoding="utf-8")
    return tool


class TestDpkg:
    @needs_dpkg
    def test_a_file_of_this_machine_is_verified(self):
        """/usr/bin/dash has the digest that its package lists under /bin."""
        origin = Origins().of_file(facts_of(dash()))
        assert origin is not None
        assert (origin.kind, origin.name, origin.verified, origin.detail) == ("dpkg", "dash", True, "")
        version = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", "dash"], check=True, capture_output=True, text=True
        ).stdout
        assert origin.version == version

    @needs_dpkg
    def test_an_open_descriptor_is_read_without_moving_it(self):
        """The content comes from the descriptor that is given."""
        fd = os.open(dash(), os.O_RDONLY)
        try:
            origin = Origins().of_file(facts_of(dash()), fd)
            assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        finally:
            os.close(fd)
        assert origin is not None
        assert origin.verified

    @needs_dpkg
    def test_the_second_answer_is_remembered(self, monkeypatch: pytest.MonkeyPatch):
        """The content is read once for one path and digest."""
        origins = Origins()
        first = origins.of_file(facts_of(dash()))
        monkeypatch.setattr(Origins, "_search_dpkg", lambda *_: pytest.fail("searched again"))
        assert origins.of_file(facts_of(dash())) == first

    @needs_dpkg
    def test_a_copy_of_a_packaged_file_has_no_origin(self, tmp_path: Path):
        """The package vouches for a path, not for bytes anywhere."""
        copy = tmp_path / "dash"
        copy.write_bytes(dash().read_bytes())
        assert Origins().of_file(facts_of(copy)) is None

    def test_below_another_root(self, tmp_path: Path):
        """A merged /usr path, an architecture and an epoch are found; only root's database verifies."""
        file = fake_root(tmp_path / "root")
        origin = Origins(str(tmp_path / "root")).of_file(facts_of(file))
        assert origin is not None
        assert (origin.kind, origin.name, origin.version) == ("dpkg", "tool", "2:1.0-3")
        assert origin.verified is ROOT

    def test_a_tampered_file_is_not_verified(self, tmp_path: Path):
        """Other content than the package's is said to be so."""
        file = fake_root(tmp_path / "root")
        file.write_bytes(b"#!/bin/sh\nevil\n")
        origin = Origins(str(tmp_path / "root")).of_file(facts_of(file))
        assert origin is not None
        assert (origin.verified, origin.detail) == (False, "content differs from the package's digest")

    def test_a_database_that_others_can_write_is_not_believed(self, tmp_path: Path):
        """A group-writable directory of md5sums files verifies nothing."""
        file = fake_root(tmp_path / "root")
        (tmp_path / "root/var/lib/dpkg/info").chmod(0o775)
        origin = Origins(str(tmp_path / "root")).of_file(facts_of(file))
        assert origin is not None
        assert not origin.verified
        assert "database" in origin.detail

    def test_a_file_of_another_owner_is_not_verified(self, tmp_path: Path):
        """The file must belong to root."""
        file = fake_root(tmp_path / "root")
        origin = Origins(str(tmp_path / "root")).of_file(facts_of(file, owner_uid=1234))
        assert origin is not None
        assert not origin.verified

    def test_content_that_changed_after_the_facts_has_no_origin(self, tmp_path: Path):
        """The MD5 must be of the content that the facts are of."""
        file = fake_root(tmp_path / "root")
        facts = facts_of(file)
        file.write_bytes(b"#!/bin/sh -e\n")
        assert Origins(str(tmp_path / "root")).of_file(facts) is None

    def test_a_path_that_leads_elsewhere_now_has_no_origin(self, tmp_path: Path):
        """Without a descriptor the path must lead to the inode of the facts."""
        file = fake_root(tmp_path / "root")
        facts = facts_of(file)
        (tmp_path / "copy").write_bytes(file.read_bytes())
        (tmp_path / "copy").replace(file)
        assert Origins(str(tmp_path / "root")).of_file(facts) is None

    def test_a_new_status_file_ends_what_is_remembered(self, tmp_path: Path):
        """After an upgrade the package is looked up again."""
        root = tmp_path / "root"
        file = fake_root(root)
        origins = Origins(str(root))
        assert origins.of_file(facts_of(file)) is not None
        status = root / "var/lib/dpkg/status"
        status.write_text(status.read_text(encoding="utf-8").replace("2:1.0-3", "2:1.0-4"), encoding="utf-8")
        os.utime(status, ns=(1, 1))
        origin = origins.of_file(facts_of(file))
        assert origin is not None
        assert origin.version == "2:1.0-4"

    def test_a_file_that_no_package_lists(self, tmp_path: Path):
        """A name that merely ends like a listed one is not it."""
        file = fake_root(tmp_path / "root", listed="xbin/tool")
        assert Origins(str(tmp_path / "root")).of_file(facts_of(file)) is None


class TestPython:
    def test_a_console_script_of_record(self, tmp_path: Path):
        """A script beside its site-packages is found through ../../../bin."""
        tool = site(tmp_path / "venv")
        origin = Origins().of_file(facts_of(tool, writable=True))
        assert origin is not None
        assert (origin.kind, origin.name, origin.version) == ("python", "tool", "1.2")
        assert (origin.verified, origin.detail) == (False, "digest matches RECORD, but the caller can write it")

    @pytest.mark.root
    @pytest.mark.root
    def test_a_record_that_only_root_writes_verifies(self, tmp_path: Path):
        """RECORD's digest counts where neither it nor the file is the caller's; not once others can write it."""
        tool = site(tmp_path / "venv")
        origins = Origins(str(tmp_path))
        tmp_path.chmod(0o755)
        origin = origins.of_file(facts_of(tool))
        assert origin is not None
        assert origin.verified
        (tmp_path / "venv/lib/python3.11/site-packages/tool-1.2.dist-info/RECORD").chmod(0o666)
        origin = origins.of_file(facts_of(tool))
        assert origin is not None
        assert not origin.verified

    def test_a_changed_script_differs(self, tmp_path: Path):
        """Other content than RECORD's is said to be so."""
        tool = site(tmp_path / "venv", record=b"the original")
        origin = Origins().of_file(facts_of(tool))
        assert origin is not None
        assert (origin.verified, origin.detail) == (False, "content differs from RECORD")

    def test_a_record_without_metadata_is_no_origin(self, tmp_path: Path):
        """A distribution without a name vouches for nothing."""
        tool = site(tmp_path / "venv")
        (tmp_path / "venv/lib/python3.11/site-packages/tool-1.2.dist-info/METADATA").unlink()
        assert Origins().of_file(facts_of(tool)) is None

    def test_an_editable_install_has_no_origin(self, tmp_path: Path):
        """A file that no RECORD lists belongs to nobody."""
        site(tmp_path / "venv")
        source = tmp_path / "src/tool/cli.py"
        source.parent.mkdir(parents=True)
        source.write_text("", encoding="utf-8")
        assert Origins().of_file(facts_of(source)) is None


class TestNpm:
    def test_the_nearest_named_package(self, tmp_path: Path):
        """A package.json without a name is passed over; the label is never verified."""
        package = tmp_path / "node_modules/@scope/pkg"
        (package / "dist").mkdir(parents=True)
        (package / "package.json").write_text('{"name": "@scope/pkg", "version": "1.2.3-rc.1"}', encoding="utf-8")
        (package / "dist/package.json").write_text('{"type": "module"}', encoding="utf-8")
        (package / "dist/cli").write_text("", encoding="utf-8")
        origin = Origins().of_file(facts_of(package / "dist/cli"))
        assert origin is not None
        assert (origin.kind, origin.name, origin.version) == ("npm", "@scope/pkg", "1.2.3-rc.1")
        assert (origin.verified, origin.detail) == (False, "no registry digest on this machine")

    def test_the_search_ends_at_node_modules(self, tmp_path: Path):
        """A package without a package.json does not take the project's name."""
        (tmp_path / "node_modules/bare").mkdir(parents=True)
        (tmp_path / "package.json").write_text('{"name": "project", "version": "1.0.0"}', encoding="utf-8")
        (tmp_path / "node_modules/bare/x.js").write_text("", encoding="utf-8")
        assert Origins().of_file(facts_of(tmp_path / "node_modules/bare/x.js")) is None

    def test_a_project_file(self, tmp_path: Path):
        """JavaScript outside node_modules takes the project's name; other files do not."""
        (tmp_path / "package.json").write_text('{"name": "project", "version": "1.0.0"}', encoding="utf-8")
        for name in ("server.mjs", "server"):
            (tmp_path / name).write_text("", encoding="utf-8")
        origin = Origins().of_file(facts_of(tmp_path / "server.mjs"))
        assert origin is not None
        assert origin.name == "project"
        assert Origins().of_file(facts_of(tmp_path / "server")) is None

    @pytest.mark.parametrize(
        "text",
        ["", "[" * 100_000, '{"name": 5, "version": "1"}', '{"name": "a\\u001b[31m", "version": "1"}', "\xff", "null"],
    )
    def test_hostile_package_files(self, tmp_path: Path, text: str):
        """What is no proper package.json is no origin and no exception."""
        (tmp_path / "package.json").write_text(text, encoding="latin-1")
        (tmp_path / "a.js").write_text("", encoding="utf-8")
        assert Origins(str(tmp_path)).of_file(facts_of(tmp_path / "a.js")) is None

    def test_a_fifo_as_package_file_does_not_block(self, tmp_path: Path):
        """A FIFO or a link in the place of package.json is passed over."""
        os.mkfifo(tmp_path / "package.json")
        (tmp_path / "a.js").write_text("", encoding="utf-8")
        assert Origins(str(tmp_path)).of_file(facts_of(tmp_path / "a.js")) is None


class TestLabels:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/snap/firefox/4090/usr/lib/firefox/firefox", ("snap", "firefox", "4090")),
            (
                "/var/lib/flatpak/app/org.gnome.Builder/x86_64/stable/0abc/files/bin/builder",
                ("flatpak", "org.gnome.Builder", "stable"),
            ),
            ("/snap/x", None),
            ("/snap/\x1b[31m/1/bin/x", None),
        ],
    )
    def test_paths_of_snaps_and_flatpaks(self, tmp_path: Path, path: str, expected: tuple[str, str, str] | None):
        """They are labels and never verified."""
        file = tmp_path / "f"
        file.write_text("", encoding="utf-8")
        origin = Origins(str(tmp_path)).of_file(facts_of(file, path=path))
        assert (None if origin is None else (origin.kind, origin.name, origin.version)) == expected
        assert origin is None or not origin.verified


@pytest.mark.parametrize(
    "changed", [{"deleted": True}, {"memfd": True}, {"path": "relative"}, {"path": "/usr/\nbin/x"}]
)
def test_what_has_no_lasting_path_has_no_origin(tmp_path: Path, changed: dict[str, object]):
    """A deleted file, a memfd and a path that is none have no origin."""
    file = fake_root(tmp_path / "root")
    assert Origins(str(tmp_path / "root")).of_file(facts_of(file, **changed)) is None


def test_a_file_without_a_digest_has_no_origin(tmp_path: Path):
    """Content that could not be read is vouched for by nobody."""
    file = fake_root(tmp_path / "root")
    facts = facts_of(file)
    unread = FileFacts(
        **{name: getattr(facts, name) for name in facts.__struct_fields__ if name != "sha256"}, sha256=None
    )
    assert Origins(str(tmp_path / "root")).of_file(unread) is None
