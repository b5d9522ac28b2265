"""What 10 000 grants of other programs cost per call."""

from __future__ import annotations

import os
import secrets
import statistics
import time

import msgspec

from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.audit.verify import verify
from attestd.daemon.paths import Paths
from attestd.grants.integrity import body_digest, decode
from attestd.grants.store import Store, _columns
from tests.bench.report import Figure
from tests.bench.stage import call_blocks, instance, one_cpu, unix_server
from tests.support.instance import Instance

NAME = "cost per call with 10 000 grants of other programs ÷ with 1"
GRANTS = 10_000


def measure(*, quick: bool) -> list[Figure]:
    """Two daemons that differ in their grants only; one client calls on both in turn."""
    blocks, calls = (40, 100) if quick else (120, 200)
    with one_cpu(), instance() as few, instance() as many, unix_server(few) as path:
        many.server("bench", transport="unix", socket=str(path))
        for made in (few, many):
            made.start()
            call_blocks(few, 1, 10, made.socket("bench"), ask=made)
        many.stop()
        add_strangers(many, GRANTS)
        many.start()
        held = len(many.ctl("grants", "list"))
        one, crowd = call_blocks(few, blocks, calls, few.socket("bench"), many.socket("bench"))
    parts = statistics.median(one), statistics.median(crowd)
    return [
        Figure(
            name=NAME,
            value=parts[1] / parts[0],
            unit="×",
            limit=1.05,
            parts={"1 grant µs": parts[0], f"{held} grants µs": parts[1]},
            note="all on one CPU",
            rounds=blocks,
        )
    ]


def add_strangers(made: Instance, number: int) -> None:
    """Give ``number`` other programs the grant that is there, with the audit records that make them valid."""
    state = made.state
    paths = Paths(config=made.config, state=state, runtime=made.root / "r" / "attestd", user_mode=True)
    origin = verify(paths.audit).first_key.partition("+")[0]
    store = Store(paths.store)
    with (
        AuditLogFile(paths.audit, origin, high_water=state / "audit.head") as log,
        store._writing("write to") as database,
    ):
        pattern = decode(store.rows()[0])
        for _ in range(number):
            subject = msgspec.structs.replace(pattern.subject, program=secrets.token_hex(32))
            grant = msgspec.structs.replace(pattern, id=f"g-{secrets.token_hex(6)}", subject=subject)
            entry = Entry(
                kind="admin",
                id=grant.id,
                method="grant.approve",
                server=grant.object.server,
                verdict="ok",
                uid=os.getuid(),
                detail={"digest": body_digest(grant)},
            )
            seq = log.append(entry, time.time_ns())
            database.execute(
                "INSERT INTO grants"
                " (id, uid, server, program_kind, program, lifetime, until_ns, body, digest, audit_seq)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (grant.id, *_columns(grant), seq),
            )
    store.close()
