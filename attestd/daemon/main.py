"""``attestd``: run the daemon, check its configuration, show the main job."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from attestd import __version__
from attestd.daemon.activation import Passed
from attestd.daemon.config import load_settings
from attestd.daemon.journal import logging_to
from attestd.daemon.notify import Notifier
from attestd.daemon.paths import Paths, policy_directory, system_paths, user_paths
from attestd.daemon.platforms import most_descriptors, passed_sockets
from attestd.errors import AttestdError, ConfigurationError, ExitCode, NothingToDoError

START = "launchctl kickstart system/dev.attestd.daemon" if sys.platform == "darwin" else "systemctl start attestd"
LOG = logging.getLogger("attestd")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: attestd run --user")
@click.version_option(__version__, prog_name="attestd")
def main() -> None:
    """Make "local" an identity: attest every caller of the MCP servers here, and mediate every call."""


@main.command(epilog="Example: attestd run --user")
@click.option("--user", is_flag=True, help="Serve this user only, from the XDG directories.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Another attestd.toml; servers.d and policy.d lie beside it."
)
@click.option("--recorder", metavar="DIRECTORY", help="Where attestd-recorder pinned the kernel recorder.")
@click.option(
    "--process-events/--no-process-events",
    default=True,
    help="Follow the kernel's process events where no recorder is loaded: lineage through dead parents.",
)
def run(*, user: bool, config: Path | None, recorder: str | None, process_events: bool) -> None:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP reloads its configuration."""
    _guarded(lambda: _run(_paths(user=user, config=config), recorder, process_events=process_events))


@main.command("check-config", epilog="Example: attestd check-config --user")
@click.option("--user", is_flag=True, help="Check the files of user mode.")
@click.option("--config", type=click.Path(path_type=Path), help="Another attestd.toml.")
def check_config(*, user: bool, config: Path | None) -> None:
    """Read every configuration file and say what is wrong; exit 0 means that the daemon would start with it."""
    _guarded(lambda: _check(_paths(user=user, config=config)))


@main.command(epilog="Example: attestd demo </dev/null")
def demo() -> None:
    """Show the main job on real input in a throw-away instance; on a terminal, keep it until Enter."""
    from attestd.daemon.demo.story import run_demo  # noqa: PLC0415 - only this command needs it

    _guarded(lambda: run_demo(stay=sys.stdin.isatty() and sys.stdout.isatty()))


@main.command(epilog="Example: attestd unseal --all")
@click.option("--user", is_flag=True, help="The seals of this user's instance.")
@click.option("--all", "every", is_flag=True, help="The seals of every instance in this network namespace.")
def unseal(*, user: bool, every: bool) -> None:
    """Undo seals that a daemon left behind, without it; for root.

    A daemon that runs, or is started later, seals again what `attestctl servers seal` sealed; end that with
    `attestctl servers unseal`.
    """
    _guarded(lambda: _unseal(None if every else _paths(user=user, config=None)))


def _paths(*, user: bool, config: Path | None) -> Paths:
    paths = user_paths() if user else system_paths()
    if config is None:
        return paths
    if not config.is_file():
        raise ConfigurationError(f"cannot read {config}: there is no such file", hint="name an existing file")
    resolved = config.resolve()
    if resolved.name != "attestd.toml":
        raise ConfigurationError(f"cannot use {config}: its name must be attestd.toml", hint="rename the file")
    return Paths(config=resolved.parent, state=paths.state, runtime=paths.runtime, user_mode=paths.user_mode)


def _check(paths: Paths) -> None:
    from attestd.daemon.policy import load_policy  # noqa: PLC0415 - the policy engine takes a while to load
    from attestd.daemon.registry import Registry  # noqa: PLC0415

    settings = load_settings(paths.config_file)
    servers = Registry(paths).load(settings)
    policy = load_policy(policy_directory(), paths.policies, settings.identity.host_id or "check")
    click.echo(f"ok: {paths.config_file}, {len(servers)} servers, {len(policy.files)} policy files")


def _unseal(paths: Paths | None) -> None:
    if sys.platform != "linux":
        raise ConfigurationError("cannot unseal on this platform: this version seals on Linux only")
    from attestd.kernel.linux.sealing import sealer  # noqa: PLC0415 - only this command needs it

    tables = sealer.tables()
    if paths is not None:
        own = sealer.LinuxSealer(paths.state).table
        tables = tuple(table for table in tables if table == own)
    if not tables:
        raise NothingToDoError("cannot unseal: nothing is sealed", hint="every instance: attestd unseal --all")
    for table in tables:
        guards = sealer.guards_of(table)
        sealer.remove_table(table)
        for guard in guards:
            click.echo(f"open to everybody: {guard.server} (port {guard.port})")


def _run(paths: Paths, recorder: str | None, *, process_events: bool) -> None:
    if sys.platform not in {"linux", "darwin"}:
        raise ConfigurationError("cannot run on this platform: this version attests on Linux and macOS only")
    if not paths.user_mode:
        _require_service(paths)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (most := most_descriptors(hard)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    notifier = Notifier.from_environment(os.environ, os.getpid())
    passed = passed_sockets(os.environ, os.getpid())
    import uvloop  # noqa: PLC0415 - only the daemon needs it

    with logging_to(sys.stderr, os.environ):
        uvloop.run(_serve(paths, recorder, process_events=process_events, notifier=notifier, passed=passed))


def _require_service(paths: Paths) -> None:
    """The system service has a user of its own, and a package that made its directories. Raises ConfigurationError."""
    if os.geteuid() == 0:
        raise ConfigurationError(
            "cannot run as root: the system service has a user of its own",
            hint=f"start it with: {START}; for yourself alone: attestd run --user",
        )
    if not paths.state.is_dir():
        raise ConfigurationError(
            f"cannot run as the system service: there is no {paths.state}, which its package makes",
            hint="for yourself alone: attestd run --user",
        )


async def _serve(
    paths: Paths,
    recorder: str | None,
    *,
    process_events: bool = True,
    notifier: Notifier | None = None,
    passed: Passed | None = None,
) -> None:
    from attestd.daemon.service import Serving  # noqa: PLC0415 - so that errors of the command line come fast

    notifier = notifier or Notifier()
    serving = Serving(paths, recorder, process_events=process_events, notifier=notifier, passed=passed)
    gc.freeze()  # what the start made lives as long as the daemon: no collection need look at it again
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, serving.reload_signalled)
    owner = paths.runtime.stat().st_uid
    LOG.info("attestd %s serves %d servers for uid %d", __version__, len(serving.daemon.fronts), owner)
    serving.ready()
    try:
        await stop.wait()
    finally:
        notifier.stopping()
        await serving.close()


def _guarded(work: Callable[[], None]) -> None:
    """Run ``work`` and turn errors for people into text and exit code."""
    try:
        work()
    except AttestdError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.FAILED)
