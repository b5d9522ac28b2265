"""The installed system once more, in a virtual machine with a kernel of its own: for what a container cannot show.

The kernel recorder names processes as the first process namespace does, so it is of no use in a container
(``attestd-recorder.service`` is skipped there). Here PID 1 is the machine's: QEMU, without hardware help so that it runs
wherever the rest does, Debian's own kernel, a disk made of the system as it was installed. It has no network. Commands
go in over a serial line. The machine around is not touched: what is loaded into the kernel is loaded into that one.
"""

from __future__ import annotations

import contextlib
import lzma
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.system import root
from tests.system.inside.doorkeeper import READY
from tests.system.machine import FailedError, Machine
from tests.system.stage import INSIDE

MODULES = ("virtio_pci", "virtio_blk", "unix_diag", "tcp_diag")
"""What the disk hangs on, and what a system with kernel packages loads when it is asked for."""
WORDS = "console=ttyS0 panic=-1 rw systemd.mask=serial-getty@ttyS0.service"
"""For the kernel. A login on the console would wait for a device that nothing here announces, 90 seconds."""
MEMORY_MIB = 2048
ROOM_MIB = 512
CPU = "max,cx16=off"
"""All that is emulated but CMPXCHG16B, after which QEMU 7.2 has wrong flags: kernels of 6.12 allocate with it, and panic."""
BOOTED_S = 300
DOORKEEPER = "/opt/agents/doorkeeper.py"
UNIT = f"""[Unit]
Description=Serial line of the system test
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 -I {DOORKEEPER}
[Install]
WantedBy=multi-user.target
"""
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
{load}
/bin/busybox mount -t ext4 /dev/vda /new
exec /bin/busybox switch_root /new /sbin/init
"""


class Virtual(Machine):
    """A running virtual machine. Its files are behind the serial line, like everything of it."""

    def __init__(self, door: Path, source: Path) -> None:
        """``door``: the socket of its serial line; ``source``: what its disk was made of."""
        super().__init__(0, source)
        self._door = door

    def enter(self, *words: str) -> list[str]:
        """The command that runs ``words`` inside."""
        return [sys.executable, "-m", "tests.system.door", str(self._door), "--", *words]

    def path(self, inside: str) -> Path:
        """A file as it was when the disk was made."""
        return self.source / inside.lstrip("/")


def kernel(source: Path, work: Path, pocket: str) -> tuple[Path, Path]:
    """A kernel that lies in the kept root, and a first file system that loads the disk's drivers and goes on there."""
    unpacked = work / "kernel"
    for deb in (source / root.KERNELS[pocket]).glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(unpacked)], check=True)
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    modules = unpacked / "lib" / "modules" / image.name.removeprefix("vmlinuz-")
    first = work / "first"
    for directory in ("bin", "dev", "new"):
        (first / directory).mkdir(parents=True)
    busybox = unpacked / "bin" / "busybox"
    if not busybox.exists():
        busybox = unpacked / "usr" / "bin" / "busybox"
    shutil.copy(busybox, first / "bin" / "busybox")
    names = [_laid(each, first) for each in _in_order(modules, busybox)]
    load = "\n".join(f"/bin/busybox insmod /{name}" for name in names)
    init = first / "init"
    init.write_text(INIT.format(load=load))
    init.chmod(0o755)
    packed = work / "first.cpio"
    words = f"{busybox} find . | {busybox} cpio -o -H newc > {packed}"
    subprocess.run(["sh", "-ec", words], cwd=first, check=True, capture_output=True)
    return image, packed


def _in_order(modules: Path, busybox: Path) -> list[Path]:
    """The files of ``MODULES`` and of all that they need, what is needed first; without what the kernel has built in."""
    needs: dict[str, list[str]] = {}
    subprocess.run([str(busybox), "depmod", "-b", str(modules.parents[2]), modules.name], check=True)
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
    found: list[str] = []
    built_in = {Path(line).stem for line in (modules / "modules.builtin").read_text().splitlines()}
    for name in sorted(set(MODULES) - built_in, key=MODULES.index):
        (path,) = (each for each in needs if Path(each).name.split(".")[0] == name)
        found += [each for each in (*reversed(needs[path]), path) if each not in found]
    return [modules / each for each in found]


def _laid(module: Path, first: Path) -> str:
    """A module as the kernel takes it; its name there."""
    data = module.read_bytes()
    name = module.name.removesuffix(".xz")
    (first / name).write_bytes(lzma.decompress(data) if module.suffix == ".xz" else data)
    return name


def disk(source: Path, work: Path) -> Path:
    """A disk with what the installed system has, and the doorkeeper."""
    image = work / "disk"
    used = subprocess.run(["du", "--summarize", "--block-size=1M", str(source)], check=True, capture_output=True)
    size = int(used.stdout.split()[0]) * 5 // 4 + ROOM_MIB
    shutil.copy(INSIDE / "doorkeeper.py", source / DOORKEEPER.lstrip("/"))
    units = source / "etc" / "systemd" / "system"
    (units / "door.service").write_text(UNIT)
    wanted = units / "multi-user.target.wants" / "door.service"
    wanted.parent.mkdir(exist_ok=True)
    wanted.symlink_to("../door.service")
    try:
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(source), str(image), f"{size}M"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    finally:
        for path in (wanted, units / "door.service", source / DOORKEEPER.lstrip("/")):
            path.unlink()
    return image


@contextlib.contextmanager
def booted(source: Path, pocket: str = "") -> Iterator[Virtual]:
    """The system of that directory, booted; gone at the end, with all that it did. Raises FailedError.

    ``pocket``: whose kernel, as in ``root.KERNELS``; the suite's own by default.
    """
    with tempfile.TemporaryDirectory(prefix="attestd-vm.") as below:
        work = Path(below)
        image, first = kernel(source, work, pocket)
        door, console = work / "door", work / "console"
        command = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            CPU,
            "-smp",
            "2",
            "-m",
            str(MEMORY_MIB),
        ]
        command += ["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]
        command += ["-kernel", str(image), "-initrd", str(first), "-append", WORDS]
        command += ["-drive", f"file={disk(source, work)},format=raw,if=virtio,cache=unsafe"]
        command += ["-serial", f"file:{console}", "-serial", f"unix:{door},server=on,wait=off"]
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL)
        try:
            yield _ready(process, Virtual(door, source), console)
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], machine: Virtual, console: Path) -> Virtual:
    """Wait until somebody is at the door. Raises FailedError."""
    deadline = time.monotonic() + BOOTED_S
    shown = ""
    while process.poll() is None and time.monotonic() < deadline:
        shown = console.read_text(errors="replace") if console.exists() else ""
        if READY in shown:
            machine.systemctl("is-system-running", "--wait", check=False, seconds=BOOTED_S)
            return machine
        time.sleep(0.2)
    shown = console.read_text(errors="replace")  # what it said last
    raise FailedError(f"cannot boot the virtual machine:\n{shown[-3000:]}")
