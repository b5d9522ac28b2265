"""A minimal Debian, made once and kept: debootstrap's smallest variant with an init system, and nothing of Python.

What the package depends on lies in the root's own apt cache, downloaded and not installed: apt resolves and installs it
there without a network, as it would on a new machine with one. Suite and mirror are those of this machine's apt. The
cache is below ``$XDG_CACHE_HOME`` (``~/.cache``), named by a digest of everything that goes in.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIANT = "minbase"
BASE = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "procps")
"""With an init system; ``procps`` is what an administrator types."""
FETCHED = ("python3", "polkitd", "pipx", "tmux")
"""Downloaded with all that they need, for apt to install them: the first two with the package, the others for what one
user installs alone."""
KERNEL = ("linux-image-cloud", "busybox-static")
"""For the virtual machines of ``virtual``: a kernel for machines like them, of this architecture, and what mounts their
disk. Downloaded only; nothing of the system under test uses them."""
KERNELS = {"": "var/cache/attestd-test-kernel", "-backports": "var/cache/attestd-test-kernel-newer"}
"""Where they lie: the kernel of the suite itself, and the one that its backports have, which is newer."""
MKFS = ("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal")
SIZE = "4g"
"""Of the file system in memory, which takes no more than is written."""
FORMAT = "3"
"""Of what is below; another one makes another root."""


def mirror() -> tuple[str, str]:
    """Where this machine's apt gets Debian from, and its suite. Raises SystemExit: it has no such source."""
    wanted = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN) $(LABEL)"
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in found.stdout.splitlines():
        uri, codename, component, *labels = line.split()
        if labels[:2] == ["Debian", "Debian"] and component == "main" and "-" not in codename:
            return uri, codename
    raise SystemExit("cannot make a Debian root: apt has no source of Debian's main component; run apt-get update")


def prepared() -> Path:
    """The kept root, which nobody changes; made if it is not there yet, which takes minutes."""
    uri, suite = mirror()
    words = "\n".join((FORMAT, suite, VARIANT, *BASE, "", *FETCHED, "", *KERNEL, *KERNELS))
    name = f"{suite}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attestd" / "system-root"
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / f"{name}.lock"):
        root = place / name
        if not root.is_dir():
            print(f"making a Debian root ({suite}, {VARIANT}); kept for the next run", flush=True)
            new = place / f"{name}.new"
            shutil.rmtree(new, ignore_errors=True)
            with in_memory() as made:
                _make(made, uri, suite, place / "debs")
                subprocess.run(["cp", "--archive", str(made), str(new)], check=True)
            new.rename(root)
    return root


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """An empty file system in memory, for as long as it is used: a package manager waits for a disk at every file.

    It is ext4, as on a machine: the daemon remembers digests only on file systems whose changes show, which tmpfs is not.
    """
    with tempfile.TemporaryDirectory(prefix="attestd-root.") as below:
        memory, place = Path(below) / "memory", Path(below) / "root"
        for directory in (memory, place):
            directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,size={SIZE}", "attestd-root", str(memory)], check=True)
        try:
            image = memory / "image"
            subprocess.run([*MKFS, str(image), SIZE], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["mount", "-o", "loop,noatime", str(image), str(place)], check=True)
            (place / "lost+found").rmdir()
            try:
                yield place
            finally:
                subprocess.run(["umount", "--lazy", str(place)], check=True)
        finally:
            subprocess.run(["umount", "--lazy", str(memory)], check=True)


def copy(to: Path) -> None:
    """Fill a directory with a copy of the kept root."""
    subprocess.run(["cp", "--archive", f"{prepared()}/.", str(to)], check=True)


def _make(new: Path, uri: str, suite: str, debs: Path) -> None:
    debs.mkdir(exist_ok=True)
    options = [f"--variant={VARIANT}", f"--include={','.join(BASE)}", f"--cache-dir={debs}"]
    command = ["debootstrap", *options, suite, str(new), uri]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"cannot make a Debian root:\n{done.stdout[-4000:]}")
    fetch = ["apt-get", "--quiet", "--yes", "--download-only", "--option=APT::Keep-Downloaded-Packages=1", "install"]
    for words in (["apt-get", "--quiet", "update"], [*fetch, *FETCHED]):
        subprocess.run(["chroot", str(new), *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    for pocket, place in KERNELS.items():
        _fetch_kernel(new, uri, f"{suite}{pocket}", place)
    (new / "etc/hostname").write_text("attestd-test\n")
    for identity in ("etc/machine-id", "etc/resolv.conf"):
        (new / identity).unlink(missing_ok=True)


def _fetch_kernel(new: Path, uri: str, suite: str, place: str) -> None:
    """The newest kernel, which the suite's own package of that name depends on, without what would install it."""
    (new / place).mkdir()
    source = new / "etc/apt/sources.list.d/kernel.list"
    source.write_text(f"deb {uri} {suite} main\n")
    name = f"{KERNEL[0]}-$(dpkg --print-architecture)"
    apt = f"--option=APT::Default-Release={suite}"
    newest = (
        f"apt-cache {apt} --no-all-versions show {name} | sed -n 's/^Depends:.*\\(linux-image-[0-9][^ ]*\\).*/\\1/p'"
    )
    fetch = f"apt-get --quiet update; cd /{place}; apt-get --quiet {apt} download $({newest}) {KERNEL[1]}"
    subprocess.run(["chroot", str(new), "sh", "-ec", fetch], check=True, capture_output=True)
    source.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
