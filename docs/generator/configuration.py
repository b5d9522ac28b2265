"""docs/reference/configuration.md, from the structs of ``daemon.config`` and their docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, Literal, get_args, get_origin

import msgspec

from attestd.daemon.config import (
    ApprovalSettings,
    BackPeer,
    IdentitySettings,
    LimitSettings,
    ListenSettings,
    RegistrySettings,
    SealSettings,
    ServerLimits,
    ServerSettings,
    Settings,
)
from docs.generator.markdown import code, page, plain, table

WORDS = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    dict: "table of text",
    tuple: "list of text",
}


def render() -> str:
    """Return the page."""
    where = table(
        ("what", "user mode", "system installation"),
        (
            (
                "configuration",
                "`$XDG_CONFIG_HOME/attestd/attestd.toml`, else `~/.config/attestd/attestd.toml`",
                "`/etc/attestd/attestd.toml`, root's",
            ),
            ("servers", "`servers.d/*.toml` beside it, one file for each server", "the same, root's"),
            ("policies of this host", "`policy.d/*.cedar` beside it, layered over the shipped `policy/`", "the same"),
            (
                "state: grants, audit log",
                "`$XDG_STATE_HOME/attestd/`, else `~/.local/state/attestd/`",
                "`/var/lib/attestd/`",
            ),
            (
                "servers that were added with `attestctl`",
                "files of `servers.d`",
                "`servers/all/`, `servers/UID/` of the state",
            ),
            ("sockets", "`$XDG_RUNTIME_DIR/attestd/`, else `/run/user/<uid>/attestd/`", "`/run/attestd/`"),
        ),
    )
    rules = (
        "Every file is optional. Unknown keys, wrong types and values are errors that name file, key and line. "
        "`attestd check-config --user` reads everything and says what is wrong. A bad configuration refuses to start; "
        "`attestctl reload` (or SIGHUP) with a bad one keeps the old one. Configuration directories are made with mode "
        "0700."
    )
    return page(
        "Configuration",
        "`attestd/daemon/config.py`",
        rules,
        where,
        "## attestd.toml",
        _section(Settings, "At the top", skip=("limits", "approval", "identity", "listen", "seal", "servers")),
        _section(LimitSettings, "[limits]"),
        _section(ApprovalSettings, "[approval]"),
        _section(IdentitySettings, "[identity]"),
        _section(ListenSettings, "[listen]"),
        _section(SealSettings, "[seal]"),
        _section(RegistrySettings, "[servers]"),
        "## servers.d/NAME.toml",
        _section(ServerSettings, "[server]", skip=("peer", "limits")),
        _section(ServerLimits, "[server.limits]"),
        _section(BackPeer, "[server.peer]"),
        "## Environment\n\nNothing but the XDG variables and HOME changes where attestd looks. `NO_COLOR` turns "
        "colours off. A started server gets PATH `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`, "
        "HOME, USER, LOGNAME, LANG and what its `env` says, and nothing else; in system mode HOME, USER and LOGNAME "
        "are those of the uid that it runs as.",
    )


def _section(kind: type[msgspec.Struct], title: str, *, skip: tuple[str, ...] = ()) -> str:
    docs = field_docs(kind)
    rows = (
        (code(field.encode_name), _type(field.type), _default(field), plain(docs.get(field.name)))
        for field in msgspec.structs.fields(kind)
        if field.name not in skip
    )
    return f"### {title}\n\n{plain(kind.__doc__)}\n\n" + table(("key", "type", "default", "what"), rows)


def field_docs(kind: type) -> dict[str, str]:
    """The docstrings that stand below the fields of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    found: dict[str, str] = {}
    name = ""
    for node in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[name] = str(node.value.value)
            name = ""
    return found


def _type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(code(f'"{each}"') for each in get_args(kind))
    for each in (kind, get_origin(kind), *get_args(kind)):
        if each in WORDS:
            return WORDS[each]
    raise TypeError(f"cannot describe {kind!r}")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    match value:
        case None:
            return ""
        case bool():
            return code(str(value).lower())
        case str():
            return code(f'"{value}"')
        case tuple():
            return code(str(list(value)))
        case _:
            return code(str(value))
