"""docs/reference/levels.md, from ``appraisal.caps.CAPS``."""

from __future__ import annotations

from itertools import groupby

from attestd.appraisal.caps import CAPS
from docs.generator.markdown import code, page, table

MEANING = {
    0: "Refused outright, whatever the grants say.",
    1: "Exact bytes, but in the caller's reach: it could have changed or forged something here.",
    2: "Exact bytes, beyond the caller's reach.",
    3: "A package's own record vouches for the bytes; macOS: a verified signer whose signature leaves a gap.",
    4: "The kernel enforces a verified signer's signature over the bytes. Linux never reaches it in this version.",
}


def render() -> str:
    """Return the page."""
    introduction = (
        "The level of a caller is the least cap of all reasons that apply to it, so another fact can only lower it. "
        "A grant states the level that it needs at least; by default that is 1. `attestctl inspect --self` and "
        "`attestctl pending` show the reasons. Without the kernel recorder every "
        "level is at most 1 where unprivileged user namespaces are allowed (`image-claimed`)."
    )
    meaning = table(("level", "meaning"), ((str(level), text) for level, text in MEANING.items()))
    sections = [
        f"## At most {cap}\n\n" + table(("reason", "what it means", "what lifts it"), _rows(tuple(codes)))
        for cap, codes in groupby(sorted(CAPS, key=lambda each: CAPS[each].cap), key=lambda each: CAPS[each].cap)
    ]
    return page("Assurance levels and their reasons", "`attestd/appraisal/caps.py`", introduction, meaning, *sections)


def _rows(codes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    return [(code(each), CAPS[each].doc, CAPS[each].remedy) for each in codes]
