"""Layers of policies before the engine sees them."""

from __future__ import annotations

import pytest

from attestd.decision.layers import (
    NESTING_CAP,
    STATEMENT_CAP,
    TEMPLATES,
    Layer,
    check_layers,
    check_size,
    check_templates,
    policies,
    statement_lines,
    statements,
)
from attestd.errors import Cause, PolicyInvalidError

TEXT = """// a comment; with "signs
@id("a;b//c")
permit (principal, action, resource)
when { "; \\" //" == "x" };  @id("b") forbid (
principal, action, resource);
"""


def test_statement_lines():
    """Statements begin where their first word is; comments and strings do not end one."""
    assert statement_lines(TEXT) == (2, 4)
    assert statement_lines("") == ()
    assert statement_lines("permit(") == (1,)


def test_statements_add_up():
    """The pieces are the document, cut at the ends of statements only."""
    assert "".join(statements(TEXT)).strip() == TEXT.strip()
    assert len(statements(TEXT)) == 2
    assert statements("a; b") == ("a;", " b")


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 10_000 + "true" + ")" * 10_000,
        "(1 > " * 2_000 + "1" + ")" * 2_000,
        "[" * 10_000,
        " && ".join(["true"] * 20_000),
        "1" + "+1" * 20_000 + " > 0",
        "if true then true else " * 5_000 + "true",
        "principal" + ".package" * 20_000,
    ],
)
def test_what_would_overflow_the_parser_is_refused(condition: str):
    """Nesting and chains that overflow the stack of Cedar's parser never reach it."""
    text = '\n@id("a") permit (principal, action, resource) when { ' + condition + " };"
    with pytest.raises(PolicyInvalidError, match=r"x\.cedar, line 2: the statement is too large"):
        check_layers([Layer(name="a", text=text, file="x.cedar")])


def test_sizes_that_are_allowed():
    """Nesting up to the cap, many statements and long strings pass."""
    check_size("(" * NESTING_CAP + ")" * NESTING_CAP, "x")
    check_size("a" * STATEMENT_CAP, "x")
    check_size("aaaa;" * STATEMENT_CAP, "x")
    check_size('"' + "(" * 100_000 + '"', "x")
    check_size("// " + "(" * 100_000, "x")
    check_size("1 < 2 " * 300, "x")
    with pytest.raises(PolicyInvalidError):
        check_size("Set<" * 100, "the schema", "([{<)]}>")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "grant:x", "x" * 65, "-a"])
def test_layer_names(name: str):
    """A layer's name cannot be mistaken for part of another id."""
    with pytest.raises(PolicyInvalidError, match="unique"):
        check_layers([Layer(name=name, text="")])


def parsed(**annotations: str | None) -> dict[str, dict[str, dict[str, object]]]:
    """One forbid in Cedar's JSON form with these annotations."""
    return {"staticPolicies": {"policy0": {"effect": "forbid", "annotations": annotations}}, "templates": {}}


def test_ids_and_versions():
    """The full id is layer, id and version; message and cause come from the annotations."""
    layer = Layer(name="host", text="forbid;")
    (policy,) = policies(layer, parsed(id="a", version="3", message="no", cause="traced"))
    assert (policy.id, policy.message, policy.cause, policy.line) == ("host/a@3", "no", Cause.TRACED, 1)
    (plain,) = policies(layer, parsed(id="a"))
    assert (plain.id, plain.cause) == ("host/a", Cause.POLICY_FORBID)


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"id": None},
        {"id": ""},
        {"id": "a", "version": "1/2"},
        {"id": "a", "message": "x" * 257},
        {"id": "a", "cause": "no_grant"},
        {"id": "a", "cause": None},
        {"id": "a", "breakglass": "allowed"},
    ],
)
def test_annotations_that_are_refused(annotations: dict[str, str | None]):
    """Missing ids, unknown annotations and values outside their sets are refused with the line."""
    with pytest.raises(PolicyInvalidError, match="of layer host, line 1"):
        policies(Layer(name="host", text="forbid;"), parsed(**annotations))


def test_templates_are_complete():
    """The eight templates of the first layer are all there or the set is refused."""
    with pytest.raises(PolicyInvalidError, match="missing: baseline/connect-1"):
        check_templates([], Layer(name="baseline", text=""))
    assert len(TEMPLATES) == 8
