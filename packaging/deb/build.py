"""Builds the Debian package: ``python packaging/deb/build.py [--version V]… [--output DIR]``; see ``make package``.

What goes in: attestd with an environment of its own below /usr/lib/attestd, made of exactly the wheels that the lock
names, by digest; units, accounts, directories, polkit files, completions, man pages, shipped policy, documents. It runs
with the target's Python of the minor version that builds it, which the package depends on. The same sources give the
same bytes: every time is SOURCE_DATE_EPOCH (by default that of the last commit), bytecode names no time at all.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import environment
import manual

from attestd import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
HOME = "usr/lib/attestd"
MAINTAINER = "attestd maintainers <maintainers@attestd.dev>"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NEXT = f"{sys.version_info.major}.{sys.version_info.minor + 1}"
SCRIPTS = {
    "attestd": "attestd.daemon.main",
    "attestctl": "attestd.cli.main",
    "attestd-recorder": "attestd.kernel.linux.recorder.main",
}


class Tree:
    """The files of the package, below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        """One file."""
        to = self.root / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content.encode() if isinstance(content, str) else content)
        to.chmod(mode)
        return to

    def copy(self, source: Path, path: str, mode: int = 0o644) -> None:
        """A file of the repository."""
        self.write(path, source.read_bytes(), mode)

    def compressed(self, path: str, content: str | bytes) -> None:
        """A file as policy wants it in /usr/share/doc and /usr/share/man: without a time in it."""
        data = content.encode() if isinstance(content, str) else content
        self.write(path + ".gz", gzip.compress(data, 9, mtime=0))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        to = self.root / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(target)


def programs(tree: Tree) -> None:
    """The environment, our code in it, and the programs; isolated, so that no variable of a caller adds code."""
    packages = tree.root / HOME / "lib" / f"python{PYTHON}" / "site-packages"
    environment.lay(packages, ROOT / "requirements.lock", ROOT / "build" / "deb" / "wheels")
    for source in sorted((ROOT / "attestd").rglob("*")):
        if source.suffix in {".py", ".c", ".o"} and "__pycache__" not in source.parts:
            tree.copy(source, str((packages / source.relative_to(ROOT)).relative_to(tree.root)))
    tree.write(f"{HOME}/pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n")
    for name in ("python", "python3"):
        tree.link(f"{HOME}/bin/{name}", f"/usr/bin/python{PYTHON}")
    launcher(tree)
    shebang = f"#!/{HOME}/bin/python3 -I\n"
    for name, module in SCRIPTS.items():
        body = f'"""{name}, see ``{module}``."""\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n'
        tree.write(f"{HOME}/bin/{name}", shebang + body, 0o755)
    connect = (ROOT / "packaging" / "attestd-connect").read_text().split("\n", 1)[1]
    tree.write(f"{HOME}/bin/attestd-connect", shebang + connect, 0o755)
    for name in (*SCRIPTS, "attestd-connect"):
        tree.link(f"usr/bin/{name}", f"../lib/attestd/bin/{name}")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for place in (packages, tree.root / HOME / "launcher"):
        compileall.compile_dir(
            place, quiet=2, stripdir=str(tree.root), prependdir="/", invalidation_mode=unchecked, workers=1
        )


def launcher(tree: Tree) -> None:
    """What the launcher is made of, apart: nothing more shall be importable with its privileges."""
    for source in (ROOT / "attestd" / "__init__.py", *sorted((ROOT / "attestd" / "launch").glob("*.py"))):
        tree.copy(source, f"{HOME}/launcher/{source.relative_to(ROOT)}")


def system(tree: Tree) -> None:
    """Units, accounts, directories, polkit, configuration, policy."""
    packaging = ROOT / "packaging"
    for unit in sorted((packaging / "systemd").glob("*.service")) + sorted((packaging / "systemd").glob("*.socket")):
        tree.copy(unit, f"lib/systemd/system/{unit.name}")
    tree.copy(packaging / "systemd/user/attestd.service", "usr/lib/systemd/user/attestd.service")
    tree.copy(packaging / "systemd/attestd.sysusers", "usr/lib/sysusers.d/attestd.conf")
    tree.copy(packaging / "systemd/attestd.tmpfiles", "usr/lib/tmpfiles.d/attestd.conf")
    for path, pattern in (("usr/share/polkit-1/actions", "*.policy"), ("usr/share/polkit-1/rules.d", "*.rules")):
        for file in sorted((packaging / "polkit").glob(pattern)):
            tree.copy(file, f"{path}/{file.name}")
    for file in sorted(path for path in (ROOT / "policy").iterdir() if path.is_file()):
        tree.copy(file, f"usr/share/attestd/policy/{file.name}")
    tree.copy(HERE / "attestd.toml", "etc/attestd/attestd.toml")
    for empty in ("servers.d", "policy.d", "managed.d"):
        (tree.root / "etc/attestd" / empty).mkdir(parents=True)


def documents(tree: Tree, date: str) -> None:
    """Man pages, completions, guides, changelog and copyright."""
    for page, text in manual.pages(date).items():
        tree.compressed(f"usr/share/man/man{page[-1]}/{page}", text)
    for path, text in manual.completions().items():
        tree.write(path, text)
    doc = "usr/share/doc/attestd"
    for source in sorted((ROOT / "docs").rglob("*.md")):
        tree.copy(source, f"{doc}/docs/{source.relative_to(ROOT / 'docs')}")
    for name in ("README.md", "SECURITY.md", "ARCHITECTURE.md"):
        tree.copy(ROOT / name, f"{doc}/{name}")
    tree.compressed(f"{doc}/changelog", (ROOT / "CHANGELOG.md").read_bytes())
    tree.write(f"{doc}/copyright", copyright_text())
    tree.copy(HERE / "lintian-overrides", "usr/share/lintian/overrides/attestd")


def copyright_text() -> str:
    """Ours, and that of everything that is carried along."""
    carried = "".join(
        f"\n {name} {metadata.version(name)}: {environment.licence(name)}" for name in environment.runtime()
    )
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: attestd\n\n"
        "Files: *\nCopyright: attestd contributors\nLicense: Apache-2.0\n"
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n\n"
        f"Files: {HOME}/lib/*\nCopyright: their authors, see the licenses in each *.dist-info directory\n"
        f"License: as-named\n Each carried distribution and its license:{carried}\n"
    )


def control(tree: Tree, version: str, architecture: str) -> None:
    """DEBIAN/: what dpkg reads."""
    files = sorted(path for path in tree.root.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in files) // 1024
    text = (HERE / "control").read_text()
    values = {"VERSION": version, "ARCH": architecture, "SIZE": str(size), "PY": PYTHON, "NEXT": NEXT}
    for name, value in {**values, "MAINTAINER": MAINTAINER}.items():
        text = text.replace(f"@{name}@", value)
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree.root)}\n"
        for path in files
        if not path.is_relative_to(tree.root / "etc")
    )
    conffiles = "".join(f"/{path.relative_to(tree.root)}\n" for path in files if path.is_relative_to(tree.root / "etc"))
    for name in ("postinst", "prerm", "postrm"):
        tree.copy(HERE / name, f"DEBIAN/{name}", 0o755)
    tree.write("DEBIAN/control", text)
    tree.write("DEBIAN/md5sums", sums)
    tree.write("DEBIAN/conffiles", conffiles)


def epoch() -> int:
    """Seconds since 1970 that stand for now."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    return int(_told("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))


def build(versions: list[str], output: Path, *, compressed: bool) -> list[Path]:
    """Build the package, once for each version of these sources; the paths."""
    moment = epoch()
    date = _told("date", "--utc", "--rfc-email", f"--date=@{moment}")
    architecture = _told("dpkg", "--print-architecture")
    stage = ROOT / "build" / "deb" / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    tree = Tree(stage)
    programs(tree)
    system(tree)
    documents(tree, date)
    built = []
    for version in versions:
        entry = f"attestd ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {MAINTAINER}  {date}\n"
        tree.compressed("usr/share/doc/attestd/changelog.Debian", entry)
        control(tree, version, architecture)
        for path in (stage, *stage.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
            os.utime(path, (moment, moment), follow_symlinks=False)
        built.append(output / f"attestd_{version}_{architecture}.deb")
        command = ["dpkg-deb", "--root-owner-group", "-Zxz" if compressed else "-Znone", "--build"]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(moment)}
        subprocess.run([*command, str(stage), str(built[-1])], check=True, stdout=subprocess.DEVNULL, env=environ)
        shutil.rmtree(stage / "DEBIAN")
    return built


def _told(*command: str) -> str:
    """One line that a program prints."""
    environ = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout.strip()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--version", action="append", help="instead of the version of the sources; repeatable")
    parser.add_argument("--uncompressed", action="store_true", help="built faster, for tests")
    parser.add_argument("--output", type=Path, default=ROOT / "build")
    words = parser.parse_args()
    os.umask(0o022)
    for built in build(words.version or [__version__], words.output, compressed=not words.uncompressed):
        print(built)
    return 0


if __name__ == "__main__":
    sys.exit(main())
