"""Loading, replacing and unloading the recorder, with the rights it says it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attestd.errors import NothingToDoError, NotPermittedError
from attestd.kernel.linux.recorder import bpf, layout, pins
from attestd.kernel.linux.recorder.failures import AbsentError, LayoutError, RecorderError
from attestd.kernel.linux.recorder.load import committed_object, load
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.recorder.unload import unload
from tests.support.children import running
from tests.support.recorder import eventually, key_of, pin_root, recording

pytestmark = pytest.mark.root

ORDINARY = ("setpriv", "--reuid", "60001", "--regid", "60001", "--clear-groups")
COMMAND = (sys.executable, "-I", "-c", "from attestd.kernel.linux.recorder.main import main; main()")


def another_build() -> bytes:
    """An object that does the same and has another digest: bytes after its end are not looked at."""
    return committed_object() + b"\0"


def test_load_is_quick_and_small():
    """Load and attach take at most a second, the maps at most 32 MiB, and every optional part works here."""
    with pin_root() as root:
        began = time.monotonic()
        done = load(root)
        took = time.monotonic() - began
        assert done.changed
        assert not done.left_out
        assert set(done.features) == set(layout.FEATURE_NAMES.values())
        assert took <= 1 or os.getloadavg()[0] > 3
        reader = BpfRecorder.open(root, consume=False)
        assert reader.map_bytes() <= 32 << 20
        reader.close()


def test_the_same_build_is_left_alone():
    """Loading what is loaded changes nothing."""
    with recording() as root:
        before = os.listdir(pins.current(root))
        assert not load(root).changed
        assert os.listdir(pins.current(root)) == before


def test_unload_leaves_nothing():
    """After unload nothing of it is in the BPF file system, readers are told, and a second unload has nothing to do."""
    with pin_root() as root:
        load(root)
        reader = BpfRecorder.open(root)
        assert reader.state()[0] == "on"
        unload(root)
        assert not os.path.exists(root)
        assert reader.state() == ("absent", "the kernel recorder was unloaded or replaced")
        reader.close()
        with pytest.raises(AbsentError, match="not loaded"):
            BpfRecorder.open(root)
        with pytest.raises(NothingToDoError):
            unload(root)


def test_an_upgrade_forgets_nothing():
    """Another build takes over the maps: records, words, losses and the open reader go on."""
    with recording() as root, running("/bin/sleep", "100") as old:
        reader = BpfRecorder.open(root)
        try:
            before = eventually(lambda: (r := reader.process(key_of(old.pid))) and r.comm == "sleep" and r)
            done = load(root, image=another_build())
            assert (done.changed, done.carried_over) == (True, True)
            assert os.listdir(root) == [pins.CURRENT]
            assert reader.state()[0] == "on"
            assert reader.process(before.key) == before
            assert reader.exec_event(before.key, before.exec_counter) is not None
            with running("/bin/sleep", "100") as new:
                after = eventually(lambda: (r := reader.process(key_of(new.pid))) and r.comm == "sleep" and r)
                assert not after.pre_attach
        finally:
            reader.close()


def test_another_layout_is_refused_and_replaced():
    """Maps of another layout are not read; loading replaces them by empty ones, and their readers are not misled."""
    with recording() as root:
        old = BpfRecorder.open(root)
        try:
            told = old.told()
            state = bpf.pinned(f"{pins.current(root)}/state")
            with bpf.closing(state):
                bpf.map_set(state, bytes(4), layout.STATE.pack(*told._replace(layout=layout.LAYOUT_VERSION + 1)))
            with pytest.raises(
                LayoutError, match=f"has layout {layout.LAYOUT_VERSION + 1}, expected layout {layout.LAYOUT_VERSION}"
            ):
                BpfRecorder.open(root)
            done = load(root)
            assert (done.changed, done.carried_over) == (True, False)
            assert old.state()[0] == "absent"
            new = BpfRecorder.open(root)
            assert new.state()[0] == "on"
            new.close()
        finally:
            old.close()


def test_a_reader_after_a_restart():
    """A reader that is opened again knows the living, the dead and the words that the first one had taken."""
    with recording() as root, running("/bin/sleep", "100") as living:
        first = BpfRecorder.open(root)
        with running("/bin/sleep", "100", "0") as child:
            dead = eventually(lambda: (r := first.process(key_of(child.pid))) and r.comm == "sleep" and r)
        alive = first.process(key_of(living.pid))
        assert alive is not None
        assert first.exec_event(dead.key, dead.exec_counter) is not None
        first.close()
        second = BpfRecorder.open(root)
        try:
            assert second.process(alive.key) == alive
            again = second.process(dead.key)
            assert again is not None
            assert again.exited_ns is not None
            for record in (alive, dead):
                words = second.exec_event(record.key, record.exec_counter)
                assert words is not None
                assert words.argv[:2] == (b"/bin/sleep", b"100")
        finally:
            second.close()


def test_a_second_reader():
    """Who comes second leaves the events to the first, says so, and knows the words of the living."""
    with recording() as root, running("/bin/sleep", "100") as child:
        first, second = BpfRecorder.open(root), BpfRecorder.open(root)
        try:
            record = eventually(lambda: (r := second.process(key_of(child.pid))) and r.comm == "sleep" and r)
            assert second.exec_event(record.key, record.exec_counter) is not None
            assert "another reader" in second.state()[1]
            assert second.state()[0] == "on"
        finally:
            second.close()
            first.close()


@pytest.mark.parametrize(
    "absent",
    [
        {"BPF_MAP_TYPE_TASK_STORAGE", "BPF_CGROUP_UNIX_CONNECT"},
        {"i_ctime_sec", "i_ctime_nsec", "i_generation"},
    ],
    ids=["parts", "fields"],
)
def test_without_what_older_kernels_lack(absent: set[str]):
    """What a kernel lacks is left out and named; the rest records as before."""
    with recording(absent=frozenset(absent)) as root, running("/bin/sleep", "100") as child:
        reader = BpfRecorder.open(root)
        try:
            record = eventually(lambda: (r := reader.process(key_of(child.pid))) and r.comm == "sleep" and r)
            assert record.image is not None
            assert record.image.ino == os.stat("/bin/sleep").st_ino
            assert (record.image.ctime_ns == 0) == ("i_ctime_sec" in absent)
            assert reader.exec_event(record.key, record.exec_counter) is not None
            features = reader.told().features
            assert bool(features & layout.FEATURE_WORDS) == ("BPF_MAP_TYPE_TASK_STORAGE" not in absent)
            assert bool(features & layout.FEATURE_CONNECT_UNIX) == ("BPF_CGROUP_UNIX_CONNECT" not in absent)
        finally:
            reader.close()


def test_a_program_that_the_verifier_rejects():
    """A kernel without a required field is refused with the verifier's reason, and nothing stays behind."""
    with pin_root() as root:
        with pytest.raises(RecorderError, match="cannot load program 'on_exec'") as caught:
            load(root, absent=frozenset({"start_boottime"}))
        assert "invalid func" in caught.value.message
        assert not os.path.exists(root)


def test_a_failed_upgrade_keeps_the_old_one():
    """If the new build cannot be loaded, the old one goes on."""
    with recording() as root:
        with pytest.raises(RecorderError):
            load(root, force=True, absent=frozenset({"start_boottime"}))
        assert os.listdir(root) == [pins.CURRENT]
        reader = BpfRecorder.open(root)
        assert reader.state()[0] == "on"
        reader.close()


@pytest.fixture(name="caps_root")
def _caps_root():
    """A directory in the BPF file system that an ordinary user owns."""
    with pin_root() as root:
        os.mkdir(root, 0o700)
        os.chown(root, 60001, 60001)
        yield root


def with_capabilities(*names: str) -> tuple[str, ...]:
    """An ordinary user with those capabilities only."""
    caps = ",".join(f"+{name}" for name in names)
    return (*ORDINARY, "--inh-caps", caps, "--ambient-caps", caps) if names else ORDINARY


def test_three_capabilities_are_enough(caps_root: str):
    """An ordinary user with BPF, PERFMON and NET_ADMIN loads it, and the status shows it."""
    user = with_capabilities("bpf", "perfmon", "net_admin")
    loaded = subprocess.run([*user, *COMMAND, "load", "--pin", caps_root, "--json"], capture_output=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["left_out"] == {}
    shown = subprocess.run(
        [*ORDINARY, *COMMAND, "status", "--pin", caps_root, "--json"], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)["state"] == "on"


@pytest.mark.parametrize("held", [(), ("bpf", "net_admin"), ("perfmon", "net_admin")])
def test_too_few_capabilities(caps_root: str, held: tuple[str, ...]):
    """Without them the command says what it needs and ends with 4."""
    done = subprocess.run(
        [*with_capabilities(*held), *COMMAND, "load", "--pin", caps_root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in done.stderr


def test_a_named_group_may_read():
    """With --group an ordinary user of that group reads it and takes the events; another user may not."""
    code = (
        "import sys\nfrom attestd.kernel.linux.recorder.reader import BpfRecorder\n"
        "from attestd.evidence.recorder import ProcessKey\n"
        "r = BpfRecorder.open(sys.argv[1]); k = ProcessKey(int(sys.argv[2]), int(sys.argv[3])); p = r.process(k)\n"
        "print(r.state()[1], p.comm, r.exec_event(k, p.exec_counter).argv[1].decode(), r.losses().fork_events)\n"
        "r.close()"
    )
    with recording(group=60001) as root, running("/bin/sleep", "123") as child:
        reader = BpfRecorder.open(root, consume=False)
        record = eventually(lambda: (r := reader.process(key_of(child.pid))) and r.comm == "sleep" and r)
        reader.close()
        words = [sys.executable, "-I", "-c", code, root, str(child.pid), str(record.key.start_ns)]
        done = subprocess.run([*ORDINARY, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("sleep 123 0\n")
        assert done.stdout.startswith("build ")
        other = ("setpriv", "--reuid", "60002", "--regid", "60002", "--clear-groups")
        refused = subprocess.run([*other, *words], capture_output=True, text=True, check=False)
        assert "NotPermittedError" in refused.stderr


def test_the_bpf_file_system_is_mounted_when_it_is_not():
    """In a mount namespace without one, load mounts it."""
    script = (
        "mount -t tmpfs none /sys/fs/bpf && "
        'python() { "$0" -I -c \'from attestd.kernel.linux.recorder.main import main; main()\' "$@"; } && '
        "python load && python status && stat -f -c %T /sys/fs/bpf && python unload && "
        "ls -A /sys/fs/bpf | grep -v debug"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable], capture_output=True, text=True, check=False
    )
    assert "bpf_fs" in done.stdout, done.stderr
    assert done.stdout.endswith("unloaded the recorder\n")


def test_a_recorder_of_somebody_else_is_not_believed():
    """Maps that another user could have pinned are not read."""
    with recording() as root:
        os.chown(root, 60001, -1)
        with pytest.raises(RecorderError, match="owner 60001"):
            BpfRecorder.open(root)
        os.chown(root, 0, -1)


def test_a_directory_elsewhere_is_refused(tmp_path: Path):
    """Pins live in a BPF file system only."""
    with pytest.raises(RecorderError, match="not in a BPF file system"):
        load(str(tmp_path / "attestd"))


def test_reading_without_permission(monkeypatch: pytest.MonkeyPatch):
    """Pins that may not be opened are a clear refusal."""

    def refuse(path: str, flags: int = 0) -> int:
        raise PermissionError(13, f"{path} {flags}")

    with recording() as root, monkeypatch.context() as patched:
        patched.setattr(bpf, "pinned", refuse)
        with pytest.raises(NotPermittedError, match="cannot open the kernel recorder: permission denied"):
            BpfRecorder.open(root)
