"""Proxies that attestd is measured beside, each at an exact version, between the same client and the same server.

nginx is the system's; fastmcp is in our environment; supergateway and mcp-remote come from npm with the digests of
npm/package-lock.json, mcp-proxy from PyPI with those of pypi/requirements.lock, because it needs an older SDK than
ours. What cannot be installed or started is left out, and the figure says why.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from tests.bench.stage import installed
from tests.conformance.stage import Server, free_port, listening
from tests.support.npm import PLACE, MissingError, install, node

HERE = Path(__file__).parent
INSTALL_S = 240.0
NGINX = """\
daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/nginx.log error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {root}/nginx-body; proxy_temp_path {root}/nginx-proxy;
  fastcgi_temp_path {root}/nginx-1; uwsgi_temp_path {root}/nginx-2; scgi_temp_path {root}/nginx-3;
  upstream server {{ server {upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_set_header Host {upstream};
    }}
  }}
}}
"""
FASTMCP = '''\
"""fastmcp's own proxy: fastmcp_proxy.py [http PORT|stdio] TARGET; the target is a URL, or a command as JSON."""
import json, sys
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy

*front, target = sys.argv[1:]
if not target.startswith("http"):
    command, *args = json.loads(target)
    target = StdioTransport(command=command, args=args)
options = {"host": "127.0.0.1", "port": int(front[1])} if len(front) > 1 else {}
create_proxy(target).run(transport=front[0], show_banner=False, log_level="ERROR", **options)
'''
Target = str | Sequence[str]
"""A URL, or the words of a command."""
Starter = Callable[[Path, Target], contextlib.AbstractContextManager[Target]]
"""Starts a proxy before a target, with a scratch directory; where clients go instead. Raises PeerError."""


class PeerError(RuntimeError):
    """A peer that cannot be had here."""


def versions() -> str:
    """Which version of each peer is meant."""
    npm = json.loads((HERE / "npm" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    pypi = re.findall(
        r"^(mcp-proxy)==(\S+)", (HERE / "pypi" / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE
    )
    found = {**npm, **dict(pypi), "fastmcp": metadata.version("fastmcp"), "nginx": _nginx_version()}
    return ", ".join(f"{name} {found[name]}" for name in sorted(found))


@contextlib.contextmanager
def started(
    wanted: dict[str, tuple[Starter, Target]], scratch: Path
) -> Iterator[tuple[dict[str, Target], dict[str, str]]]:
    """Peers before their targets: where each is reached, and of those that are missing, why."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Target] = {}
        missing: dict[str, str] = {}
        for name, (start, target) in wanted.items():
            try:
                found[name] = stack.enter_context(start(scratch, target))
            except (PeerError, RuntimeError) as error:
                missing[name] = str(error).strip()[:120]
        yield found, missing


@contextlib.contextmanager
def nginx(scratch: Path, target: Target) -> Iterator[Target]:
    """As a plain reverse proxy that holds nothing back."""
    binary = installed("nginx")
    if binary is None or not isinstance(target, str):
        raise PeerError("nginx is not installed")
    upstream, port = target.split("/")[2], free_port()
    config = scratch / "nginx.conf"
    config.write_text(NGINX.format(root=scratch, upstream=upstream, port=port), encoding="utf-8")
    words = (binary, "-p", str(scratch), "-e", str(scratch / "nginx.log"), "-c", str(config))
    with _listening("nginx", words, scratch, port) as url:
        yield url


@contextlib.contextmanager
def fastmcp(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a URL or a command, over Streamable HTTP."""
    script = _script(scratch)
    words = (sys.executable, str(script), "http", "{port}", _word(target))
    with _listening("fastmcp", words, scratch) as url:
        yield url


@contextlib.contextmanager
def fastmcp_stdio(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a URL, over stdio."""
    yield [sys.executable, str(_script(scratch)), "stdio", _word(target)]


@contextlib.contextmanager
def mcp_proxy(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a command, over Streamable HTTP."""
    words = (_mcp_proxy(), "--host", "127.0.0.1", "--port", "{port}", "--log-level", "ERROR", "--", *target)
    with _listening("mcp-proxy", words, scratch) as url:
        yield url


@contextlib.contextmanager
def mcp_proxy_stdio(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a URL, over stdio."""
    del scratch
    yield [_mcp_proxy(), "--log-level", "ERROR", "--transport", "streamablehttp", _word(target)]


@contextlib.contextmanager
def supergateway(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a command, over Streamable HTTP, with sessions: without, it starts a server for every call."""
    how = ("--outputTransport", "streamableHttp", "--stateful", "--port", "{port}", "--logLevel", "none")
    words = (*_npm("supergateway", "index.js"), "--stdio", shlex.join(target), *how)
    with _listening("supergateway", words, scratch) as url:
        yield url


@contextlib.contextmanager
def mcp_remote(scratch: Path, target: Target) -> Iterator[Target]:
    """Before a URL, over stdio."""
    program = _npm("mcp-remote", "proxy.js")
    kept = f"MCP_REMOTE_CONFIG_DIR={scratch / 'mcp-remote'}"
    yield ["env", kept, *program, _word(target), "--allow-http", "--transport", "http-only"]


def _listening(
    name: str, words: Sequence[str], scratch: Path, port: int | None = None
) -> contextlib.AbstractContextManager[str]:
    command = tuple(words)
    return listening(Server(name=name, command=command, path="/mcp"), scratch, port)


def _script(scratch: Path) -> Path:
    path = scratch / "fastmcp_proxy.py"
    path.write_text(FASTMCP, encoding="utf-8")
    return path


def _word(target: Target) -> str:
    return target if isinstance(target, str) else json.dumps(list(target))


def _nginx_version() -> str:
    binary = installed("nginx")
    if binary is None:
        return "(not installed)"
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False).stderr
    return said.rpartition("/")[2].strip()


def _npm(package: str, script: str) -> list[str]:
    try:
        place = install(HERE / "npm", "bench-npm")
    except (MissingError, OSError) as error:
        raise PeerError(f"{package} could not be installed: {error}") from error
    return [str(node(place)), str(place / "node_modules" / package / "dist" / script)]


def _mcp_proxy() -> str:
    """Its program, in an environment of its own, which is made once."""
    lock, place = HERE / "pypi" / "requirements.lock", PLACE / "mcp-proxy"
    mark, digest = place / ".installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        shutil.rmtree(place, ignore_errors=True)
        pip = [f"{place}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
            words = [*pip, "--require-hashes", "-r", str(lock)]
            subprocess.run(words, check=True, capture_output=True, timeout=INSTALL_S)
        except (subprocess.SubprocessError, OSError) as error:
            raise PeerError(f"mcp-proxy could not be installed: {error}") from error
        mark.write_text(digest, encoding="utf-8")
    return str(place / "bin" / "mcp-proxy")
