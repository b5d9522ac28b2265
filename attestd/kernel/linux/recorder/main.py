"""``attestd-recorder``: load, unload and show the kernel recorder. It pins and exits; no process keeps running."""

from __future__ import annotations

import grp
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from attestd import __version__
from attestd.errors import AttestdError, ExitCode, UsageError
from attestd.kernel.linux.recorder import layout, pins
from attestd.kernel.linux.recorder.failures import AbsentError, LayoutError
from attestd.kernel.linux.recorder.load import load as load_recorder
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.recorder.unload import unload as unload_recorder

if sys.platform != "linux":
    raise ImportError("cannot use the kernel recorder on this platform: it needs Linux")

_PIN = click.option(
    "--pin",
    default=pins.ROOT,
    show_default=True,
    metavar="DIRECTORY",
    help="Where it is pinned in the BPF file system.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: sudo attestd-recorder load")
@click.version_option(__version__, prog_name="attestd-recorder")
def main() -> None:
    """Make the kernel remember processes: lineage through dead ancestors, true images, argv at exec, who connected."""


@main.command(epilog="Example: sudo attestd-recorder load --group attestd")
@_PIN
@_JSON
@click.option("--group", help="Let this group read it (and take the exec events): the group of the daemon.")
@click.option("--force", is_flag=True, help="Load again even if this build is loaded already.")
def load(*, pin: str, as_json: bool, group: str | None, force: bool) -> None:
    """Load, attach and pin the recorder, in the place of an older one. Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN."""

    def work() -> None:
        began = time.monotonic()
        done = load_recorder(pin, group=_group_id(group), force=force)
        took_ms = round((time.monotonic() - began) * 1000)
        if as_json:
            _print_json(
                {
                    "build": done.build,
                    "features": list(done.features),
                    "left_out": done.left_out,
                    "carried_over": done.carried_over,
                    "changed": done.changed,
                    "took_ms": took_ms,
                }
            )
            return
        if not done.changed:
            click.echo(f"the recorder is loaded already: build {done.build[:12]}")
            return
        kept = ", what the older one remembered is kept" if done.carried_over else ""
        click.echo(f"loaded the recorder in {took_ms} ms: build {done.build[:12]}{kept}")
        for name, reason in done.left_out.items():
            click.echo(f"  without {name}: {reason}")

    _guarded(work)


@main.command(epilog="Example: sudo attestd-recorder unload")
@_PIN
def unload(*, pin: str) -> None:
    """End the recorder and remove everything of it from the BPF file system."""

    def work() -> None:
        unload_recorder(pin)
        click.echo("unloaded the recorder")

    _guarded(work)


@main.command(epilog="Example: sudo attestd-recorder status --json")
@_PIN
@_JSON
def status(*, pin: str, as_json: bool) -> None:
    """Show whether the recorder is loaded, what it records, what it lost and what it costs."""

    def work() -> None:
        shown = describe(pin)
        if as_json:
            _print_json(shown)
            return
        click.echo(f"{shown['state']}: {shown['reason']}")
        if shown["state"] == "on":
            click.echo(f"  recording for {shown['recording_s']} s, {shown['map_bytes'] / (1 << 20):.1f} MiB of maps")
            click.echo(f"  features: {', '.join(shown['features'])}")
            click.echo(f"  lost: {', '.join(f'{name} {count}' for name, count in shown['lost'].items())}")

    _guarded(work)


def describe(root: str = pins.ROOT) -> dict[str, Any]:
    """What ``status`` shows: state (on | absent | refused) and reason; when on, also what and since when.

    Raises:
        NotPermittedError: the pins may not be read.
    """
    try:
        reader = BpfRecorder.open(root, consume=False)
    except (AbsentError, LayoutError) as error:
        return {"state": "absent" if isinstance(error, AbsentError) else "refused", "reason": error.message}
    try:
        state, reason = reader.state()
        told = reader.told()
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return {
            "state": state,
            "reason": reason,
            "build": told.build.hex(),
            "layout": told.layout,
            "recording_s": (now - told.attached_ns) // 1_000_000_000,
            "features": [name for bit, name in layout.FEATURE_NAMES.items() if told.features & bit],
            "lost": dict(zip(layout.LOST_NAMES, reader.lost(), strict=True)),
            "map_bytes": reader.map_bytes(),
        }
    finally:
        reader.close()


def _group_id(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"cannot find group {name!r}") from None


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except AttestdError as error:
        click.echo(f"attestd-recorder: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.FAILED))
