"""Loads the recorder: maps, programs, links, pins; and takes the place of an older one in one step.

1. Under a lock on the directory; the same build that is already recording is left alone.
2. Maps are carried over from what is loaded if it has our layout and still records; then nothing is forgotten by an
   upgrade. A set of another layout is replaced by empty maps: its processes become ``pre-attach``, its words are
   forgotten.
3. The exit program is attached first and the fork program last of the three, so that no record stays without its
   exit.
4. Processes that are older are added by an iterator, which sees their exact start time; what events recorded wins.
5. Optional parts (words of the living beyond the places made beforehand, connect hooks) are left out where the
   kernel refuses them, and ``features`` says so.
6. The new set is pinned under another name and exchanged with the current one; only then do the old links end. For
   that moment both record the same events into the same maps, which changes nothing but counts a loss twice.
7. A failure leaves what was loaded as it was.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources

from attestd.kernel.linux.recorder import bpf, layout, pins
from attestd.kernel.linux.recorder import object as bpf_object
from attestd.kernel.linux.recorder.btf import Btf, Kind
from attestd.kernel.linux.recorder.core import Fitter
from attestd.kernel.linux.recorder.failures import FormatError, RecorderError, refused

if sys.platform != "linux":
    raise ImportError("cannot use the kernel recorder on this platform: it needs Linux")

KERNEL_BTF = "/sys/kernel/btf/vmlinux"
_TASK_STORAGE = 29
_TASK_STORAGE_NAME = "BPF_MAP_TYPE_TASK_STORAGE"
_TRACING, _SOCK_ADDR = 26, 18
_TRACE_RAW_TP, _TRACE_ITER = 23, 28
_WORDS_MAP = "words_of_task"
_KEPT = ("alive", "dead", "events", "connects", "stats", "state", "words_of_living", _WORDS_MAP)
_TRACEPOINTS = ("on_exit", "on_exec", "on_fork")
_HOOKS = {
    "on_connect4": ("BPF_CGROUP_INET4_CONNECT", layout.FEATURE_CONNECT4),
    "on_connect6": ("BPF_CGROUP_INET6_CONNECT", layout.FEATURE_CONNECT6),
    "on_connect_unix": ("BPF_CGROUP_UNIX_CONNECT", layout.FEATURE_CONNECT_UNIX),
}
LINKS = tuple(f"link_{name}" for name in _TRACEPOINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load did."""

    build: str
    features: tuple[str, ...]
    left_out: dict[str, str]
    """Feature and why the kernel refused it."""
    carried_over: bool
    changed: bool


def committed_object() -> bytes:
    """The object that this installation carries."""
    return resources.files("attestd.kernel.linux.recorder").joinpath("recorder.bpf.o").read_bytes()


def load(
    root: str = pins.ROOT,
    *,
    image: bytes | None = None,
    group: int | None = None,
    force: bool = False,
    absent: frozenset[str] = frozenset(),
) -> Loaded:
    """Load, attach and pin. ``absent`` names kernel fields and enumerators to do without.

    Raises:
        NotPermittedError: a capability is missing.
        RecorderError: the kernel refused; the message has its reason, or the verifier's log.
    """
    parsed = bpf_object.parse(image if image is not None else committed_object())
    pins.ensure_root(root)
    with pins.locked(root), ExitStack() as owned:
        before = _recording(root, owned)
        if before is not None and before.build == parsed.build and not force:
            names = tuple(name for bit, name in layout.FEATURE_NAMES.items() if before.features & bit)
            return Loaded(build=before.build.hex(), features=names, left_out={}, carried_over=True, changed=False)
        for directory in pins.leftovers(root):
            pins.remove(directory)
        loader = _Loader(parsed, owned, absent)
        name = f"new-{os.getpid()}"
        undo = owned.enter_context(ExitStack())
        undo.callback(pins.remove_empty, root)
        undo.callback(pins.remove, f"{root}/{name}")
        try:
            carried = loader.maps(pins.current(root) if before is not None else None)
            loader.programs()
            loader.start(before if carried else None)
            loader.pin(f"{root}/{name}", group)
            pins.swap(root, name)
        except OSError as error:
            raise refused("load the recorder", error) from None
        undo.pop_all()
        if not carried:
            mark_replaced(f"{root}/{name}")
        pins.remove(f"{root}/{name}")
        return loader.report(carried)


def mark_replaced(directory: str) -> None:
    """Tell whoever reads these maps that nothing is recorded in them any more; other layouts are left alone."""
    try:
        fd = bpf.pinned(f"{directory}/state")
    except OSError:
        return
    with bpf.closing(fd):
        if bpf.map_shape(fd)[2] == layout.STATE.size:
            told = layout.state(bpf.map_get(fd, bytes(4), layout.STATE.size))
            now = told._replace(replaced_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            bpf.map_set(fd, bytes(4), layout.STATE.pack(*now))


def _recording(root: str, owned: ExitStack) -> layout.State | None:
    """What the loaded set says of itself, if it has our layout and still records."""
    directory = pins.current(root)
    try:
        fd = bpf.pinned(f"{directory}/state")
        owned.callback(os.close, fd)
        for link in LINKS:
            os.lstat(f"{directory}/{link}")
    except OSError:
        return None
    if bpf.map_shape(fd)[2] != layout.STATE.size:
        return None
    told = layout.state(bpf.map_get(fd, bytes(4), layout.STATE.size))
    usable = (told.magic, told.layout, told.replaced_ns) == (layout.MAGIC, layout.LAYOUT_VERSION, 0)
    return told if usable and told.attached_ns else None


class _Loader:
    """One load. Every descriptor is closed when ``owned`` is left; what is pinned stays."""

    def __init__(self, parsed: bpf_object.BpfObject, owned: ExitStack, absent: frozenset[str]) -> None:
        self._object = parsed
        self._owned = owned
        self._absent = absent
        with open(KERNEL_BTF, "rb") as file:
            self._kernel = Btf(file.read())
        self._maps: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._links: dict[str, int] = {}
        self._features = 0
        self._left_out: dict[str, str] = {}
        self._fitter = Fitter(parsed.btf, self._kernel, absent)

    def _own(self, fd: int) -> int:
        self._owned.callback(os.close, fd)
        return fd

    # 2. maps
    def maps(self, existing: str | None) -> bool:
        """Take over the maps of ``existing`` if all have our shape, else make new ones; whether they were taken."""
        if existing is not None and self._take_over(existing):
            self._make(only=frozenset({"scratch", _WORDS_MAP} - set(self._maps)))
            return True
        self._maps.clear()
        self._make(only=frozenset(spec.name for spec in self._object.maps))
        return False

    def _take_over(self, existing: str) -> bool:
        for spec in self._object.maps:
            if spec.name == "scratch":
                continue
            try:
                fd = self._own(bpf.pinned(f"{existing}/{spec.name}"))
            except FileNotFoundError:
                if spec.name == _WORDS_MAP:
                    continue
                return False
            if bpf.map_shape(fd) != (spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags):
                return False
            self._maps[spec.name] = fd
        return True

    def _make(self, only: frozenset[str]) -> None:
        for spec in self._object.maps:
            if spec.name not in only:
                continue
            if spec.kind != _TASK_STORAGE:
                self._maps[spec.name] = self._own(_new_map(spec, (0, 0, 0)))
                continue
            if _TASK_STORAGE_NAME in self._absent:
                self._without_words("left out by request")
                continue
            try:
                types = self._own(bpf.btf_load(storage_types(spec.value_size)))
                self._maps[spec.name] = self._own(_new_map(spec, (types, 1, 2)))
            except OSError as error:
                self._without_words(os.strerror(error.errno or 0).lower())

    def _without_words(self, reason: str) -> None:
        self._absent |= {_TASK_STORAGE_NAME}
        self._fitter = Fitter(self._object.btf, self._kernel, self._absent)
        self._left_out[layout.FEATURE_NAMES[layout.FEATURE_WORDS]] = reason
        self._maps.pop(_WORDS_MAP, None)

    # 3. programs
    def programs(self) -> None:
        """Load every program; the optional ones may be refused."""
        try:
            self._load_tracepoint("on_exec")
        except OSError as error:
            if _WORDS_MAP not in self._maps or not isinstance(error, bpf.VerifierError):
                raise self._failure("on_exec", error) from None
            self._without_words(_reason(error))
            self._required("on_exec", self._load_tracepoint)
        for name in ("on_fork", "on_exit"):
            self._required(name, self._load_tracepoint)
        self._required("seed", self._load_iterator)
        for name, (attach, feature) in _HOOKS.items():
            try:
                number = self._attach_number(attach)
                self._programs[name] = self._load(name, _SOCK_ADDR, number)
            except (OSError, FormatError) as error:
                self._left_out[layout.FEATURE_NAMES[feature]] = _reason(error)
        if _WORDS_MAP in self._maps:
            self._features |= layout.FEATURE_WORDS

    def _required(self, name: str, load_one: Callable[[str], None]) -> None:
        try:
            load_one(name)
        except OSError as error:
            raise self._failure(name, error) from None

    @staticmethod
    def _failure(name: str, error: OSError) -> Exception:
        log = error.log[-4000:] if isinstance(error, bpf.VerifierError) else ""
        return refused(f"load program {name!r}", error, log)

    def _load_tracepoint(self, name: str) -> None:
        section = self._object.program(name).section
        wanted = f"btf_trace_{section.rpartition('/')[2]}"
        self._programs[name] = self._load(name, _TRACING, _TRACE_RAW_TP, self._type_id(wanted, Kind.TYPEDEF))

    def _load_iterator(self, name: str) -> None:
        self._programs[name] = self._load(name, _TRACING, _TRACE_ITER, self._type_id("bpf_iter_task", Kind.FUNC))

    def _type_id(self, name: str, kind: Kind) -> int:
        found = self._kernel.named(name, frozenset({kind}))
        if not found:
            raise RecorderError(f"cannot load the recorder: this kernel has no {name}")
        return found[0].type_id

    def _attach_number(self, name: str) -> int:
        if name in self._absent:
            raise FormatError(f"{name} was left out by request")
        for each in self._kernel.named("bpf_attach_type", frozenset({Kind.ENUM})):
            for label, value in self._kernel.enumerators(each):
                if label == name:
                    return value
        raise FormatError(f"this kernel has no {name}")

    def _load(self, name: str, kind: int, attach_type: int, attach_btf_id: int = 0) -> int:
        program = self._object.program(name)
        code = bytearray(program.code)
        for relocation in program.relocations:
            self._fitter.fit(code, relocation)
        for at, map_name in program.maps:
            place_map(code, at, self._maps.get(map_name))
        licence = self._object.licence
        fd = bpf.program_load(kind, bytes(code), licence, name, attach_type=attach_type, attach_btf_id=attach_btf_id)
        return self._own(fd)

    # 3, 4. attach, then add what is older
    def start(self, before: layout.State | None) -> None:
        """Attach the programs, seed the table, and say since when it records."""
        for name in _TRACEPOINTS:
            self._links[name] = self._own(bpf.raw_tracepoint_open(self._programs[name]))
        attached = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._seed()
        self._attach_hooks()
        told = layout.State(
            magic=layout.MAGIC,
            layout=layout.LAYOUT_VERSION,
            attached_ns=before.attached_ns if before is not None else attached,
            replaced_ns=0,
            features=self._features,
            zero=0,
            build=self._object.build,
        )
        bpf.map_set(self._maps["state"], bytes(4), layout.STATE.pack(*told))

    def _seed(self) -> None:
        link = bpf.link_create(self._programs["seed"], 0, _TRACE_ITER)
        with bpf.closing(link):
            fd = bpf.iterator_create(link)
        with open(fd, "rb") as iterator:
            iterator.read()

    def _attach_hooks(self) -> None:
        path = pins.cgroup_root() or "/proc/no-cgroup2-root-is-mounted-here"
        for name, (attach, feature) in _HOOKS.items():
            if name not in self._programs:
                continue
            try:
                target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                with bpf.closing(target):
                    link = bpf.link_create(self._programs[name], target, self._attach_number(attach))
                self._links[name] = self._own(link)
                self._features |= feature
            except (OSError, FormatError) as error:
                self._left_out[layout.FEATURE_NAMES[feature]] = _reason(error)
                del self._programs[name]

    # 6. pin
    def pin(self, directory: str, group: int | None) -> None:
        """Give every map, program and link its name in ``directory``."""
        os.mkdir(directory, 0o700)
        for name in _KEPT:
            if name in self._maps:
                bpf.pin(f"{directory}/{name}", self._maps[name])
        for name, fd in self._programs.items():
            if name in self._links:
                bpf.pin(f"{directory}/program_{name}", fd)
        for name, fd in self._links.items():
            bpf.pin(f"{directory}/link_{name}", fd)
        if group is not None:
            os.chown(os.path.dirname(directory), -1, group)
            os.chmod(os.path.dirname(directory), 0o750)  # noqa: S103 - for the group that was named
            pins.share(directory, group, frozenset({"events"}))

    def report(self, carried: bool) -> Loaded:
        """What this load did."""
        names = tuple(name for bit, name in layout.FEATURE_NAMES.items() if self._features & bit)
        return Loaded(
            build=self._object.build.hex(),
            features=names,
            left_out=dict(self._left_out),
            carried_over=carried,
            changed=True,
        )


def _new_map(spec: bpf_object.MapSpec, types: tuple[int, int, int]) -> int:
    return bpf.map_create(spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name, types)


def place_map(code: bytearray, at: int, fd: int | None) -> None:
    """Make a 16-byte load refer to a map; without one it loads zero and must not be reached."""
    code[at + 1] = code[at + 1] & 0x0F | (0x10 if fd is not None else 0)
    struct.pack_into("<i", code, at + 4, fd if fd is not None else 0)
    struct.pack_into("<i", code, at + 12, 0)


def storage_types(value_size: int) -> bytes:
    """The least type information that task storage asks for: 1 is an int, 2 a struct of ``value_size`` bytes."""
    texts = b"\0int\0words\0"
    types = struct.pack("<IIII", 1, Kind.INT << 24, 4, 1 << 24 | 32) + struct.pack(
        "<III", 5, Kind.STRUCT << 24, value_size
    )
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts))
    return header + types + texts


def _reason(error: Exception) -> str:
    if isinstance(error, bpf.VerifierError):
        lines = [line for line in error.log.splitlines() if line.strip() and not line.startswith("processed")]
        return lines[-1] if lines else os.strerror(error.errno or 0).lower()
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0).lower()
    return str(error)
