"""The server of ``sdk_server`` over HTTP. Prints its port, or "ready", once it listens.

Usage: http_server.py http|sse PORT|PATH [json] [stateless] [events] [reuse] [tls=CERTIFICATE]. Port 0: any. ``events``
keeps what was sent, so that streams can be taken up again; ``reuse`` sets SO_REUSEPORT.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import uvicorn
from mcp.server.streamable_http import EventMessage, EventStore
from sdk_server import server


class Events(EventStore):
    """Everything that was sent, in memory."""

    def __init__(self) -> None:
        self._all: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep one."""
        self._all.append((stream_id, message))
        return str(len(self._all))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """Send what came later on the same stream."""
        position = int(last_event_id)
        stream = self._all[position - 1][0]
        for number, (each, message) in enumerate(self._all[position:], position + 1):
            if each == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def main() -> None:
    """Serve until SIGTERM."""
    kind, place, *options = sys.argv[1:]
    if kind == "sse":
        app = server.sse_app()
    else:
        events = Events() if "events" in options else None
        app = server.streamable_http_app(
            json_response="json" in options,
            stateless_http="stateless" in options,
            event_store=events,
            retry_interval=50,
        )
    certificate = next((each[4:] for each in options if each.startswith("tls=")), None)
    if place.isdigit():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if "reuse" in options:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", int(place)))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
    listener.listen(64)
    print(listener.getsockname()[1] if place.isdigit() else "ready", flush=True)
    config = uvicorn.Config(
        app, log_level="critical", ssl_certfile=certificate, ssl_keyfile=certificate, timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(running.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
