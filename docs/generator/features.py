"""docs/reference/kernel-features.md, from ``facilities.TABLE`` and a probe's own words on what it would cost."""

from __future__ import annotations

from attestd.kernel.linux.facilities import TABLE
from docs.generator.markdown import code, page, table

GROUPS = {
    "recorder": "For the kernel recorder and process events",
    "tcp": "For callers over TCP",
    "signature": "For signatures that the kernel enforces",
}


def render() -> str:
    """Return the page."""
    introduction = (
        "`attestctl doctor` probes each by using it, never by the version of the kernel; what the daemon may not try "
        "is shown as not probed. What only `attestd-recorder load` needs is no matter once the recorder is on. The "
        "features that every attestation uses are shown by `doctor` as `kernel …`, with cost and remedy, and are "
        "described on the pages of [evidence](../evidence/README.md)."
    )
    sections = [
        f"## {title}\n\n"
        + table(
            ("feature", "what its absence costs", "how to get it"),
            ((code(row.name), row.cost, row.remedy) for row in TABLE if row.group == group),
        )
        for group, title in GROUPS.items()
    ]
    return page("Kernel features", "`attestd/kernel/linux/facilities.py`", introduction, *sections)
