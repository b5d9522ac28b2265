"""From the facts of a caller, a server and a target to the entities that policies read (policy/attestd.cedarschema).

Rules. Every string enters as a string value of a fixed attribute: nothing of a caller becomes an attribute name, an
entity reference or policy text. A fact that could not be read takes its worse value or is left out, as the schema says.
An object of a grant is the group ``grant:<id>``; a target is in that group exactly if the grant names it. The server
of a target is its parent ``MCP``, and a server is in no grant's group, so a group can never cover a whole server by
accident.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.decision.model import RequestContext, ServerFacts, ToolFacts
from attestd.evidence.model import Evidence, Link, Origin
from attestd.grants.globs import any_match, matches, meets, spans
from attestd.grants.match import UNREADABLE, package_name
from attestd.grants.model import Grant
from attestd.wire.model import Target

NAME_CAP = 1024
URI_CAP = 8192
POSTURE_CAP = 64
INJECTED = "preload"
SEARCH_PATH = "search-path"
"""Reasons of appraisal: code was put into the caller, or could be found first on a path of its own."""

SERVER_ACTIONS = frozenset({"connect", "list_tools", "list_resources", "list_prompts"})
ADMISSION = "pass"
"""The action of messages that need only admission; decided as ``connect``."""
ASKS: dict[str, str] = {
    "create_message": "sampling/createMessage",
    "elicit": "elicitation/create",
    "list_roots": "roots/list",
}
TYPES: dict[tuple[str, str], str] = {
    ("call_tool", "tool"): "Tool",
    ("read_resource", "resource"): "Resource",
    ("subscribe", "resource"): "Resource",
    ("get_prompt", "prompt"): "Prompt",
    ("complete", "prompt"): "Prompt",
    ("complete", "resource"): "Resource",
    ("read_resource", "template"): "Resource",
    ("complete", "template"): "Resource",
}
"""Entity type by action and kind of target; every other pair is refused. A template is decided as the resource of that
text; only the grants read its variables."""
TEMPLATES = {"read_resource": "some", "complete": "every"}

Entity = dict[str, Any]
Uid = dict[str, str]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A target as policies name it."""

    action: str
    type: str
    name: str
    """Tool or prompt name, URI, method of a server request; empty for the server itself."""
    template: str = ""
    """The name is a URI template, and a grant must cover ``some`` of its URIs (to be shown) or ``every`` one (to be
    completed, which tells what they are)."""


def named(target: Target) -> Named | None:
    """The target in the words of the schema, or None if there is no such action or it is too long."""
    if target.action == ADMISSION or target.action in SERVER_ACTIONS:
        return Named(action="connect" if target.action == ADMISSION else target.action, type="MCP", name="")
    if target.action in ASKS:
        return Named(action=target.action, type="ServerRequest", name=ASKS[target.action])
    kind = TYPES.get((target.action, target.kind))
    if kind is None or not target.name or len(target.name) > (URI_CAP if kind == "Resource" else NAME_CAP):
        return None
    template = TEMPLATES[target.action] if target.kind == "template" else ""
    return Named(action=target.action, type=kind, name=target.name, template=template)


def covers(grant: Grant, what: Named) -> bool:
    """Whether the grant's object names the target (its server is taken as given)."""
    match what.type:
        case "MCP":
            return True
        case "Tool":
            return any_match(grant.object.tools, what.name)
        case "Resource":
            test = {"": matches, "some": meets, "every": spans}[what.template]
            return any(test(pattern, what.name) for pattern in grant.object.resources)
        case "Prompt":
            return any_match(grant.object.prompts, what.name)
        case "ServerRequest":
            return what.name in grant.object.server_requests
        case _:
            return False


def uid(kind: str, name: str) -> Uid:
    """An entity uid in the form that needs no escaping."""
    return {"type": kind, "id": name}


def group(grant_id: str) -> Uid:
    """The group of a grant's objects."""
    return uid("Group", f"grant:{grant_id}")


def target_uid(server: ServerFacts, what: Named) -> Uid:
    """The resource of the request."""
    return uid(what.type, server.name if what.type == "MCP" else f"{server.name}/{what.name}")


def target_entities(server: ServerFacts, what: Named, tool: ToolFacts, linked: Iterable[Grant]) -> list[Entity]:
    """The server and, unless it is the target itself, the target with the groups of the grants that name it."""
    entities: list[Entity] = [{"uid": uid("MCP", server.name), "attrs": {"transport": server.transport}, "parents": []}]
    if what.type == "MCP":
        return entities
    groups = [group(grant.id) for grant in linked if grant.object.server == server.name and covers(grant, what)]
    entities.append(
        {
            "uid": target_uid(server, what),
            "attrs": _target_attributes(what, tool),
            "parents": [uid("MCP", server.name), *groups],
        }
    )
    return entities


def caller_entities(result: AttestationResult, evidence: Evidence, host: str) -> list[Entity]:
    """The process and every entity it is in."""
    accountable = evidence.chain[result.accountable]
    parents = [
        uid("User", str(result.uid)),
        uid("Program", f"sha256:{result.program}"),
        uid("Chain", f"sha256:{result.chain}"),
    ]
    entities: list[Entity] = [{"uid": parents[0], "attrs": {"uid": result.uid}, "parents": []}]
    if host:
        parents.append(uid("Host", host))
    if accountable.exe is not None and accountable.exe.sha256 is not None:
        parents.append(uid("Exe", f"sha256:{accountable.exe.sha256}"))
    if accountable.script is not None and accountable.script.sha256 is not None:
        parents.append(uid("Script", f"sha256:{accountable.script.sha256}"))
    package = package_name(result.package)
    if package:
        parents.append(uid("Package", package))
        kind, _, _ = package.partition(":")
        attributes = {"kind": kind, "version": result.package.rpartition("@")[2]}
        entities.append({"uid": parents[-1], "attrs": attributes, "parents": []})
    known = {(entity["uid"]["type"], entity["uid"]["id"]) for entity in entities}
    entities += [
        {"uid": parent, "attrs": {}, "parents": []} for parent in parents if (parent["type"], parent["id"]) not in known
    ]
    attributes = _caller_attributes(result, evidence, accountable, package)
    entities.append({"uid": uid("Process", result.instance), "attrs": attributes, "parents": parents})
    return [_encodable(entity) for entity in entities]


def context_record(context: RequestContext, now: str) -> dict[str, Any]:
    """The context of a request; ``now`` is the time as Cedar's datetime wants it."""
    return {
        "protocol_version": context.protocol_version,
        "transport": context.transport,
        "hour": context.hour,
        "weekday": context.weekday,
        "now": {"__extn": {"fn": "datetime", "arg": now}},
        "args_sha256": context.args_sha256,
        "args_size": context.args_size,
        "calls_in_session": context.calls_in_session,
    }


def _target_attributes(what: Named, tool: ToolFacts) -> dict[str, Any]:
    match what.type:
        case "Tool":
            return {
                "name": what.name,
                "readOnlyHint": tool.read_only,
                "destructiveHint": tool.destructive,
                "idempotentHint": tool.idempotent,
                "openWorldHint": tool.open_world,
                "pinned": tool.pinned,
            }
        case "Resource":
            return {"uri": what.name, "scheme": what.name.partition(":")[0].lower() if ":" in what.name else ""}
        case "ServerRequest":
            return {"method": what.name}
        case _:
            return {"name": what.name}


def _caller_attributes(result: AttestationResult, evidence: Evidence, link: Link, package: str) -> dict[str, Any]:
    between = evidence.chain[: result.accountable + 1]
    seen = sorted({entry for each in between for entry in each.posture})
    codes = {reason.code for reason in result.reasons}
    attributes: dict[str, Any] = {
        "kind": result.kind.value,
        "uid": result.uid,
        "program": result.program,
        "chain": result.chain,
        "attest_level": result.level,
        "recorded": result.recorded,
        "inline": result.inline,
        "traced": any(each.tracer_pid != 0 for each in between),
        "injected": INJECTED in codes,
        "search_path": SEARCH_PATH in codes,
        "posture": seen[:POSTURE_CAP],
        "launchers": sorted({launcher.program or UNREADABLE for launcher in result.launchers}),
        "build_step": any(launcher.build_step for launcher in result.launchers),
        **_image_attributes(link),
        **_script_attributes(link),
    }
    if package:
        attributes["package"] = {"__entity": uid("Package", package)}
    origin = link.script.origin if link.script is not None else link.origin
    if origin is not None:
        attributes["origin"] = _origin(origin)
    return attributes


def _image_attributes(link: Link) -> dict[str, Any]:
    exe = link.exe
    if exe is None:
        return {"exe_path": "", "exe_owner_uid": -1, "exe_writable": True, "exe_deleted": True, "exe_memfd": True}
    attributes: dict[str, Any] = {
        "exe_path": exe.path,
        "exe_owner_uid": exe.owner_uid,
        "exe_writable": exe.writable,
        "exe_deleted": exe.deleted,
        "exe_memfd": exe.memfd,
    }
    if exe.sha256 is not None:
        attributes["exe_sha256"] = exe.sha256
    return attributes


def _script_attributes(link: Link) -> dict[str, Any]:
    script = link.script
    if script is None:
        return {"script_writable": False}
    attributes: dict[str, Any] = {
        "interpreter": script.interpreter,
        "script_kind": script.kind,
        "script_writable": script.file.writable if script.file is not None else True,
    }
    if script.sha256 is not None:
        attributes["script_sha256"] = script.sha256
    if script.file is not None:
        attributes["script_path"] = script.file.path
    return attributes


def _origin(origin: Origin) -> dict[str, Any]:
    return {"kind": origin.kind, "name": origin.name, "version": origin.version, "verified": origin.verified}


def _encodable(value: Any) -> Any:
    """The value with unpaired surrogates (a path that is not UTF-8) replaced, which Cedar would not accept."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {name: _encodable(each) for name, each in value.items()}
        case list():
            return [_encodable(each) for each in value]
        case _:
            return value
