"""Policy layers: which text came from where, and the rules that a policy must keep before it may decide.

Rules. Every policy has an ``@id`` that is unique in its layer; its full id is ``<layer>/<@id>``, with ``@<version>``
if it has one. Only the annotations in ``ANNOTATIONS`` are allowed: an annotation that we would ignore could be one
that was meant to restrict. Templates (the meaning of a grant) come from the first layer only and are exactly
``TEMPLATES``. A set without policies is refused. Nesting and statement size are bounded before Cedar's parser, which
recurses, sees the text: it would overflow the stack and take the daemon with it. Control characters that reorder text
are refused everywhere, comments too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from attestd.errors import Cause, PolicyInvalidError

LEVELS = (1, 2, 3, 4)
TEMPLATES = frozenset(f"{kind}-{level}" for kind in ("grant", "connect") for level in LEVELS)
ANNOTATIONS = frozenset({"id", "version", "message", "cause", "severity", "description"})
CAUSES = frozenset(
    {
        Cause.POLICY_FORBID,
        Cause.UNATTESTABLE,
        Cause.TRACED,
        Cause.LEVEL_TOO_LOW,
        Cause.LAUNCHER,
        Cause.INLINE,
    }
)
"""Causes that a forbid may give with ``@cause``."""
MESSAGE_CAP = 256
NESTING_CAP = 64
"""Open brackets at one place. Cedar's parser overflows an 8 MiB stack between 400 and 1000."""
STATEMENT_CAP = 4096
"""Characters of one statement without blanks, comments and the inside of strings: bounds chains such as
``a && b && …``, on which the parser recurses too (it overflows beyond 5000 links of two characters)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|\S', re.DOTALL)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One document of policies. Layers are given lowest first: vendor, fleet, host."""

    name: str
    text: str
    file: str = ""
    """Where it came from, for error texts."""

    @property
    def shown(self) -> str:
        """The file, or failing that the name."""
        return self.file or f"layer {self.name}"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy or template, as loaded."""

    id: str
    layer: str
    effect: str
    """permit | forbid"""
    template: bool
    line: int
    body: dict[str, Any]
    """Cedar's JSON form."""
    message: str = ""
    cause: Cause = Cause.POLICY_FORBID


def statement_lines(text: str) -> tuple[int, ...]:
    """The line on which each statement of a policy document begins, counted from 1."""
    lines: list[int] = []
    open_statement = False
    for found in _TOKEN.finditer(text):
        word = found[0]
        if word.startswith("//"):
            continue
        if not open_statement:
            lines.append(text.count("\n", 0, found.start()) + 1)
            open_statement = True
        if word == ";":
            open_statement = False
    return tuple(lines)


def statements(text: str) -> tuple[str, ...]:
    """The document cut at the ends of its statements, to find the one that does not parse."""
    cuts = [0, *(found.end() for found in _TOKEN.finditer(text) if found[0] == ";")]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    rest = text[cuts[-1] :]
    return (*pieces, rest) if rest.strip() else tuple(pieces)


def check_size(text: str, shown: str, brackets: str = "([{)]}") -> None:
    """Nesting (``brackets``: the opening ones, then the closing ones) and size of each statement.

    Raises PolicyInvalidError.
    """
    half = len(brackets) // 2
    depth = size = 0
    for found in _TOKEN.finditer(text):
        word = found[0]
        if word.startswith("//"):
            continue
        size = 0 if word == ";" else size + (1 if word.startswith('"') else len(word))
        if word in brackets[:half]:
            depth += 1
        elif word in brackets[half:]:
            depth = max(depth - 1, 0)
        if depth > NESTING_CAP or size > STATEMENT_CAP:
            line = text.count("\n", 0, found.start()) + 1
            raise PolicyInvalidError(
                f"cannot load {shown}, line {line}: the statement is too large;"
                f" allowed are {NESTING_CAP} nested brackets and {STATEMENT_CAP} characters outside strings"
            )


def check_layers(layers: Sequence[Layer]) -> None:
    """What can be said of the documents before they are parsed. Raises PolicyInvalidError."""
    if not layers:
        raise PolicyInvalidError("cannot decide without policies: no layer was given, expected at least the baseline")
    names = [layer.name for layer in layers]
    for layer in layers:
        if not _NAME.fullmatch(layer.name) or names.count(layer.name) > 1:
            raise PolicyInvalidError(
                f"cannot load the policy layer {layer.name!r}: its name must be unique, letters and digits"
            )
        found = _REORDERING.search(layer.text)
        if found is not None:
            line = layer.text.count("\n", 0, found.start()) + 1
            raise PolicyInvalidError(
                f"cannot load {layer.shown}, line {line}: it has the text-reordering character U+{ord(found[0]):04X}"
            )
        check_size(layer.text, layer.shown)


def policies(layer: Layer, parsed: Mapping[str, Mapping[str, dict[str, Any]]]) -> tuple[Policy, ...]:
    """The policies of one parsed document in order of position. Raises PolicyInvalidError."""
    lines = statement_lines(layer.text)
    found: list[Policy] = []
    for section in ("templates", "staticPolicies"):
        for position_id, body in parsed.get(section, {}).items():
            position = int(position_id.removeprefix("policy"))
            line = lines[position] if position < len(lines) else 0
            found.append(_policy(layer, body, line, template=section == "templates"))
    found.sort(key=lambda policy: policy.line)
    ids = [policy.id for policy in found]
    for policy in found:
        if ids.count(policy.id) > 1:
            raise _invalid(layer, policy.line, f"the @id of {policy.id} is used twice")
    return tuple(found)


def check_templates(loaded: Iterable[Policy], first: Layer) -> None:
    """The templates are the baseline's and complete. Raises PolicyInvalidError."""
    expected = {f"{first.name}/{name}" for name in TEMPLATES}
    templates = {policy.id for policy in loaded if policy.template}
    if templates != expected:
        extra = ", ".join(sorted(templates - expected)) or "none"
        missing = ", ".join(sorted(expected - templates)) or "none"
        raise PolicyInvalidError(
            f"cannot load the policies: the templates of grants are off; unexpected: {extra}; missing: {missing}",
            hint=f"templates belong into {first.shown} only: grant-1 to grant-4 and connect-1 to connect-4",
        )


def _policy(layer: Layer, body: dict[str, Any], line: int, *, template: bool) -> Policy:
    annotations: dict[str, str | None] = body.get("annotations", {})
    unknown = sorted(annotations.keys() - ANNOTATIONS)
    if unknown:
        raise _invalid(
            layer, line, f"the annotation @{unknown[0]} is not known, allowed are {', '.join(sorted(ANNOTATIONS))}"
        )
    name, version = annotations.get("id") or "", annotations.get("version")
    if not _NAME.fullmatch(name) or (version is not None and not _NAME.fullmatch(version)):
        raise _invalid(layer, line, f"its @id is {name!r}, expected letters, digits, '.', '_' and '-', 64 at most")
    message = annotations.get("message") or ""
    if len(message) > MESSAGE_CAP:
        raise _invalid(layer, line, f"its @message has {len(message)} characters, allowed are {MESSAGE_CAP}")
    return Policy(
        id=f"{layer.name}/{name}" + (f"@{version}" if version else ""),
        layer=layer.name,
        effect=body["effect"],
        template=template,
        line=line,
        body=body,
        message=message,
        cause=_cause(layer, line, body["effect"], annotations.get("cause", "policy_forbid")),
    )


def _cause(layer: Layer, line: int, effect: str, word: str | None) -> Cause:
    allowed = {cause.value: cause for cause in CAUSES}
    if word not in allowed or (effect != "forbid" and word != Cause.POLICY_FORBID.value):
        raise _invalid(
            layer, line, f"its @cause is {word!r}, allowed are {', '.join(sorted(allowed))}, on a forbid only"
        )
    return allowed[word]


def _invalid(layer: Layer, line: int, what: str) -> PolicyInvalidError:
    return PolicyInvalidError(f"cannot load the policy of {layer.shown}, line {line}: {what}")
