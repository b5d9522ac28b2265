"""The engine: loading, deciding, and what it never does."""

from __future__ import annotations

import pytest

from attestd.appraisal.caps import reason
from attestd.appraisal.model import CallerKind
from attestd.decision.engine import Engine
from attestd.decision.layers import Layer
from attestd.decision.model import Deny, Permit, ServerFacts, ToolFacts
from attestd.errors import Cause, PolicyInvalidError
from attestd.wire.model import Target
from tests.support.policies import BASELINE, SCHEMA, ask, make_context, make_engine, make_subject, serve, tool
from tests.support.results import MINUTE, NOW, OTHER, make_evidence, make_grant, make_link, make_result

HOSTILE = [
    'get"; permit(principal, action, resource);//',
    '"',
    "\\",
    "get\n",
    "get\x00",
    "\u202eteg",
    "*",
    "?et",
    'Tool::"time/get"',
    "../get",
    "time/get",
    "get ",
    "\uff47\uff45\uff54",
    "\ud800",
    '{"__entity": {"type": "Tool", "id": "time/get"}}',
    "x" * 1025,
    "x" * 100_000,
    "",
]


def test_a_granted_tool():
    """The caller's own grant permits what it names, and names itself as the reason."""
    engine = make_engine()
    verdict = ask(engine, make_subject(engine, make_grant()), tool("get"))
    assert verdict == Permit(policies=("grant:g1",), grants=("g1",))


def test_connection_and_lists_use_nothing_up():
    """One grant for the server admits and serves lists, without counting as a use."""
    engine = make_engine()
    subject = make_subject(engine, make_grant())
    for action in ("connect", "pass", "list_tools", "list_resources", "list_prompts"):
        assert ask(engine, subject, serve(action)) == Permit(policies=("grant:g1",), grants=())


@pytest.mark.parametrize(
    ("grants", "target", "server", "cause"),
    [
        ((), tool("get"), "time", Cause.NO_GRANT),
        ((), serve("connect"), "time", Cause.NO_GRANT),
        ((make_grant(),), tool("set"), "time", Cause.OUT_OF_SCOPE),
        ((make_grant(),), tool("get"), "other", Cause.NO_GRANT),
        ((make_grant(min_level=3),), tool("get"), "time", Cause.LEVEL_TOO_LOW),
        ((make_grant(min_level=3),), tool("set"), "time", Cause.OUT_OF_SCOPE),
        ((make_grant(min_level=3),), serve("connect"), "time", Cause.LEVEL_TOO_LOW),
        ((make_grant(lifetime="until", until_ns=NOW),), tool("get"), "time", Cause.EXPIRED),
        ((make_grant(program=OTHER),), tool("get"), "time", Cause.NO_GRANT),
        ((make_grant(),), serve("list_roots"), "time", Cause.SERVER_REQUEST),
        ((make_grant(tools=()),), tool("get"), "time", Cause.OUT_OF_SCOPE),
    ],
)
def test_causes_of_a_deny(grants: tuple, target: Target, server: str, cause: Cause):
    """A deny that no policy made has the cause of the caller's own nearest grant."""
    engine = make_engine()
    verdict = ask(engine, make_subject(engine, *grants), target, server=ServerFacts(name=server, transport="stdio"))
    assert isinstance(verdict, Deny)
    assert verdict.cause is cause
    assert verdict.policies == ()


@pytest.mark.parametrize(
    ("action", "kind", "granted", "other"),
    [
        ("call_tool", "tool", "get_1", "set"),
        ("read_resource", "resource", "file:///srv/a?b", "file:///etc/passwd"),
        ("subscribe", "resource", "file:///srv/", "file:///srvx"),
        ("get_prompt", "prompt", "plan", "plans"),
        ("complete", "prompt", "plan", "get_1"),
        ("complete", "resource", "file:///srv/x", "plan"),
    ],
)
def test_every_kind_of_target(action: str, kind: str, granted: str, other: str):
    """Each action is decided on its own list of the grant."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(tools=("get_*",), resources=("file:///srv/*",), prompts=("plan",)))
    assert isinstance(ask(engine, subject, Target(action=action, kind=kind, name=granted)), Permit)
    denied = ask(engine, subject, Target(action=action, kind=kind, name=other))
    assert isinstance(denied, Deny)
    assert denied.cause is Cause.OUT_OF_SCOPE


@pytest.mark.parametrize(
    ("action", "method"),
    [("create_message", "sampling/createMessage"), ("elicit", "elicitation/create"), ("list_roots", "roots/list")],
)
def test_server_requests(action: str, method: str):
    """A request of the server passes only by a grant that names its method; a star over tools does not."""
    engine = make_engine()
    named = make_subject(engine, make_grant(server_requests=(method,)))
    wide = make_subject(engine, make_grant(tools=("*",), resources=("*",), prompts=("*",)))
    starred = make_subject(engine, make_grant(server_requests=("*",)))
    assert isinstance(ask(engine, named, serve(action)), Permit)
    for subject in (wide, starred):
        denied = ask(engine, subject, serve(action))
        assert isinstance(denied, Deny)
        assert denied.cause is Cause.SERVER_REQUEST


@pytest.mark.parametrize(
    ("action", "kind"),
    [("call_tool", "resource"), ("call_tool", "server"), ("delete_tool", "tool"), ("", ""), ("read_resource", "tool")],
)
def test_unknown_pairs_are_errors(action: str, kind: str):
    """An action on a kind that the schema does not have is denied as an error."""
    engine = make_engine()
    verdict = ask(engine, make_subject(engine, make_grant(tools=("*",))), Target(action=action, kind=kind, name="get"))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(name: str):
    """No spelling of a tool name is the granted tool, and none raises."""
    engine = make_engine()
    subject = make_subject(engine, make_grant())
    for kind, action in (("tool", "call_tool"), ("prompt", "get_prompt"), ("resource", "read_resource")):
        verdict = ask(engine, subject, Target(action=action, kind=kind, name=name))
        assert isinstance(verdict, Deny)
        assert verdict.cause in (Cause.OUT_OF_SCOPE, Cause.POLICY_ERROR)


@pytest.mark.parametrize("name", [name for name in HOSTILE if 0 < len(name) <= 1024 and name != "\ud800"])
def test_hostile_names_can_be_granted(name: str):
    """A name that was granted literally is permitted, and only that one."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(tools=(f"={name}",)))
    assert isinstance(ask(engine, subject, tool(name)), Permit)
    assert isinstance(ask(engine, subject, tool("get")), Deny)


def test_entity_injection_through_values():
    """A value that looks like an entity reference stays a string: a policy on groups does not see it."""
    engine = make_engine(
        '@id("trusted") permit (principal, action == Action::"call_tool", resource in Group::"trusted");'
        '@id("host") permit (principal, action == Action::"call_tool", resource) when { context.transport == "x" };'
    )
    injected = '{"__entity":{"type":"Group","id":"trusted"}}'
    subject = make_subject(engine, evidence=make_evidence(make_link(posture=())))
    verdict = ask(engine, subject, tool(injected), transport=injected, protocol_version=injected, args_sha256=injected)
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.NO_GRANT


@pytest.mark.parametrize("server", ["a/b", ""])
def test_server_names_cannot_hide_a_slash(server: str):
    """Server and tool cannot be spelt so that another server's tool is meant."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(server="a", tools=("b/get",)))
    verdict = ask(engine, subject, tool("get"), server=ServerFacts(name=server, transport="stdio"))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


def test_level_zero_before_any_policy():
    """A layer that permits everything does not permit level 0."""
    engine = make_engine('@id("all") permit (principal, action, resource);')
    verdict = ask(engine, make_subject(engine, result=make_result(level=0)), tool("get"))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.UNATTESTABLE


@pytest.mark.parametrize(
    ("changes", "links", "cause", "policy"),
    [
        ({}, (make_link(tracer_pid=9),), Cause.TRACED, "baseline/no-traced"),
        ({"reasons": (reason("preload"),)}, (make_link(),), Cause.POLICY_FORBID, "baseline/no-injected"),
        ({"accountable": 1}, (make_link(tracer_pid=9), make_link()), Cause.TRACED, "baseline/no-traced"),
        ({"kind": CallerKind.ORPHAN}, (make_link(),), Cause.UNATTESTABLE, "baseline/no-orphan"),
    ],
)
def test_baseline_forbids(changes: dict, links: tuple, cause: Cause, policy: str):
    """The baseline's forbids win over a permit of everything, with their own cause and id."""
    engine = make_engine('@id("all") permit (principal, action, resource);')
    subject = make_subject(engine, make_grant(), result=make_result(**changes), evidence=make_evidence(*links))
    for target in (tool("get"), serve("connect")):
        verdict = ask(engine, subject, target)
        assert isinstance(verdict, Deny)
        assert verdict.cause is cause
        assert policy in verdict.policies
        assert verdict.detail


def test_links_beyond_the_accountable_do_not_count():
    """A debugger on the launcher, which is not between client and socket, is not the client's."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(), evidence=make_evidence(make_link(), make_link(tracer_pid=9)))
    assert isinstance(ask(engine, subject, tool("get")), Permit)


def test_forbid_with_an_error_denies():
    """A forbid that overflows would be skipped by Cedar; here it denies."""
    engine = make_engine(
        '@id("sum") forbid (principal, action, resource) when { context.calls_in_session * 9223372036854775807 > 5 };'
    )
    subject = make_subject(engine, make_grant())
    verdict = ask(engine, subject, tool("get"), calls_in_session=3)
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR
    assert isinstance(ask(engine, subject, tool("get"), calls_in_session=0), Permit)


@pytest.mark.parametrize(
    "context", [{"now_ns": 10**30}, {"args_size": 2**70}, {"hour": "ten"}, {"transport": "\ud800"}]
)
def test_contexts_that_cedar_refuses_deny(context: dict):
    """A context outside the schema is an error, so a deny, and does not raise."""
    engine = make_engine()
    verdict = ask(engine, make_subject(engine, make_grant()), tool("get"), **context)
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


def test_layer_permits_and_forbids():
    """A layer may add permits, and a forbid of any layer beats every permit."""
    engine = make_engine(
        '@id("readers") permit (principal, action == Action::"call_tool", resource in MCP::"time")'
        " when { resource.readOnlyHint };",
        '@id("night") @message("not at night") forbid (principal, action, resource) when { context.hour < 6 };',
    )
    subject = make_subject(engine)
    reading = ToolFacts(read_only=True, destructive=False)
    assert ask(engine, subject, tool("x"), facts=reading) == Permit(policies=("host0/readers",))
    assert isinstance(ask(engine, subject, tool("x")), Deny)
    night = ask(engine, subject, tool("x"), facts=reading, hour=3)
    assert night == Deny(cause=Cause.POLICY_FORBID, detail="not at night", policies=("host1/night",))


def test_unknown_tool_counts_as_the_worst():
    """A tool without a definition has the specification's defaults: destructive and open to the world."""
    engine = make_engine(
        '@id("d") forbid (principal, action == Action::"call_tool", resource)'
        " when { resource.destructiveHint || resource.openWorldHint };"
    )
    assert isinstance(ask(engine, make_subject(engine, make_grant()), tool("get")), Deny)


def test_reasons_are_sorted_and_real():
    """Many determining policies come in one order, named by layer and id."""
    text = "".join(f'@id("p{number}") @version("2") permit (principal, action, resource);' for number in range(12))
    engine = make_engine(text)
    seen = {ask(engine, make_subject(engine, make_grant()), tool("get")).policies for _ in range(20)}
    assert len(seen) == 1
    (reasons,) = seen
    assert list(reasons) == sorted(reasons)
    assert "host0/p3@2" in reasons
    assert "grant:g1" in reasons


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_cedar_enforces_the_level_again(level: int):
    """Even a grant that was linked by mistake is not permitted below its minimum level."""
    from attestd.grants.match import Match

    engine = make_engine()
    grant = make_grant(min_level=level)
    for actual in (1, 2, 3, 4):
        subject = engine.subject(make_result(level=actual), make_evidence(), Match(linked=(grant,)))
        assert isinstance(ask(engine, subject, tool("get")), Permit) is (actual >= level)
        assert isinstance(ask(engine, subject, serve("connect")), Permit) is (actual >= level)


def test_only_own_grants_are_linked():
    """With ten thousand grants of others the caller's policy set holds two links for its one grant."""
    engine = make_engine()
    others = [make_grant(id=f"n{number}", program=f"{number:064x}") for number in range(10_000)]
    alone, crowded = make_subject(engine, make_grant()), make_subject(engine, *others, make_grant())
    assert crowded.grants == ("g1",)
    parsed = [engine.parsed(subject) for subject in (crowded, alone, make_subject(engine))]
    assert len(parsed[0].links) == len(parsed[1].links) == len(parsed[2].links) + 2


def test_a_caller_that_was_idle_for_long_is_decided_the_same():
    """What Cedar needs of a caller is kept for the latest callers only and made again, so idle ones cost no memory."""
    from attestd.decision.engine import PARSED_CAP

    engine = make_engine()
    first = make_subject(engine, make_grant(tools=("get",)))
    for _ in range(PARSED_CAP):
        make_subject(engine, make_grant())
    assert engine._parsed.keys().isdisjoint({first.key})
    assert isinstance(ask(engine, first, tool("get")), Permit)
    assert isinstance(ask(engine, first, tool("set")), Deny)
    assert len(engine._parsed) == PARSED_CAP


def test_expiry_between_connect_and_call():
    """A grant that ends after the caller was prepared permits until its last nanosecond and not one longer."""
    engine = make_engine()
    end = NOW + MINUTE
    subject = make_subject(engine, make_grant(lifetime="until", until_ns=end), make_grant(id="g2", tools=("set",)))
    assert isinstance(ask(engine, subject, tool("get"), now_ns=end - 1), Permit)
    for _ in range(2):
        late = ask(engine, subject, tool("get"), now_ns=end)
        assert isinstance(late, Deny)
        assert late.cause is Cause.EXPIRED
    assert isinstance(ask(engine, subject, tool("set"), now_ns=end), Permit)
    assert isinstance(ask(engine, subject, tool("get"), now_ns=end - 1), Permit)


def test_clock_before_the_grant():
    """When the clock is set back before a timed grant was made, the grant does not hold."""
    engine = make_engine()
    grant = make_grant(lifetime="until", until_ns=NOW + MINUTE, created_ns=NOW)
    verdict = ask(engine, make_subject(engine, grant), tool("get"), now_ns=NOW - 1)
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.EXPIRED


def test_several_ends():
    """As one grant after the other ends, what remains is exactly what still holds."""
    engine = make_engine()
    grants = [
        make_grant(id=f"g{minute}", tools=(f"t{minute}",), lifetime="until", until_ns=NOW + minute * MINUTE)
        for minute in (1, 2, 3)
    ]
    subject = make_subject(engine, *grants)
    for moment in (0, 2, 1, 3, 0):
        for minute in (1, 2, 3):
            verdict = ask(engine, subject, tool(f"t{minute}"), now_ns=NOW + moment * MINUTE)
            assert isinstance(verdict, Permit) is (moment < minute)


def test_once_is_spared_and_never_remembered():
    """A grant for one use is named only where nothing lasting permits, and its permit is asked anew each time."""
    engine = make_engine()
    once = make_grant(id="once", lifetime="once")
    subject = make_subject(engine, once)
    for _ in range(2):
        assert ask(engine, subject, tool("get")) == Permit(policies=("grant:once",), grants=("once",))
    both = ask(engine, make_subject(engine, once, make_grant()), tool("get"))
    assert both == Permit(policies=("grant:g1", "grant:once"), grants=("g1",))
    assert ask(engine, subject, serve("connect")) == Permit(policies=("grant:once",), grants=())


def test_long_names_are_not_remembered():
    """Resources may have names of 8192 characters: who asks for one after the other would fill the memory with them."""
    engine = make_engine()
    subject = make_subject(engine, make_grant())
    for length, remembered in ((1024, True), (1025, False)):
        target = Target(action="read_resource", kind="resource", name="file:///".ljust(length, "x"))
        verdicts = [ask(engine, subject, target) for _ in range(2)]
        assert [verdict.cached for verdict in verdicts] == [False, remembered]


def test_another_engines_subject_is_refused():
    """After a reload, even of the same text, a caller must be prepared again."""
    old, new = make_engine(), make_engine()
    subject = make_subject(old, make_grant())
    assert old.generation == new.generation
    verdict = ask(new, subject, tool("get"))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


def test_generation_names_the_content():
    """The generation changes with any text, layer name or schema, and with nothing else."""
    plain = make_engine()
    assert plain.generation == make_engine().generation
    assert make_engine('@id("a") permit (principal, action, resource);').generation != plain.generation
    assert Engine(SCHEMA + "\n", [BASELINE]).generation != plain.generation


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\n\npermit(principal", 3, "unexpected end"),
        ('@id("a") permit(principal,action,resource);\n// c ; "\n@id("b") forbid(;', 3, "unexpected"),
        ('@id("a")\npermit(principal,action,resource) when { principal.nosuch };', 1, "nosuch"),
        ('\n@id("a") permit(principal,action,resource) when { principal.package.version == "1" };', 2, "package"),
        ('@id("a") permit(principal, action == Action::"connect", resource is Tool);', 1, ""),
        ("\npermit(principal,action,resource);", 2, "@id"),
        ('@id("a") permit(principal,action,resource);@id("a") forbid(principal,action,resource);', 1, "twice"),
        ('@id("a") @mode("monitor") forbid(principal,action,resource);', 1, "@mode is not known"),
        ('@id("a") @requireApproval("x") permit(principal,action,resource);', 1, "@requireApproval is not known"),
        ('@id("a") @cause("whim") forbid(principal,action,resource);', 1, "@cause is 'whim'"),
        ('@id("a") @cause("traced") permit(principal,action,resource);', 1, "on a forbid only"),
        ('@id("a b") permit(principal,action,resource);', 1, "@id is 'a b'"),
        ('// \u202e\n@id("a") permit(principal,action,resource);', 1, "U+202E"),
    ],
)
def test_invalid_policies_name_file_and_line(text: str, line: int, words: str):
    """A policy that does not parse, validate or keep the rules is refused with its file, line and reason."""
    with pytest.raises(PolicyInvalidError) as refused:
        make_engine(text)
    assert f"0.cedar, line {line}" in refused.value.message
    assert words in refused.value.message


def test_templates_belong_to_the_baseline():
    """A further layer cannot bring templates, and the baseline cannot lack one."""
    with pytest.raises(PolicyInvalidError, match="unexpected: host0/grant-1"):
        make_engine('@id("grant-1") permit (principal == ?principal, action, resource in ?resource);')
    fewer = Layer(name="baseline", text=BASELINE.text.replace('@id("connect-4")', '@id("connect-5")'))
    with pytest.raises(PolicyInvalidError, match="missing: baseline/connect-4"):
        Engine(SCHEMA, [fewer])


def test_no_policies_and_bad_schema():
    """No layer, an empty baseline, doubled names and a broken schema are refused."""
    for layers in ([], [Layer(name="baseline", text="")], [BASELINE, BASELINE], [Layer(name="a/b", text="")]):
        with pytest.raises(PolicyInvalidError):
            Engine(SCHEMA, layers)
    with pytest.raises(PolicyInvalidError, match="schema"):
        Engine("entity", [BASELINE])


def test_deep_nesting_is_refused_or_loaded():
    """A policy nested ten thousand deep is an invalid policy, not a crash."""
    with pytest.raises(PolicyInvalidError):
        make_engine('@id("a") permit(principal,action,resource) when { ' + "(" * 10_000 + "true" + ")" * 10_000 + " };")


def test_paths_that_are_not_utf8_are_prepared():
    """A program whose path has invalid bytes can be decided about."""
    from tests.support.results import make_file

    engine = make_engine()
    evidence = make_evidence(make_link(exe=make_file(path="/tmp/\udcff")))
    assert isinstance(ask(engine, make_subject(engine, make_grant(), evidence=evidence), tool("get")), Permit)


def test_context_is_validated_on_every_uncached_call():
    """The context goes through the schema even where no policy reads it."""
    engine = make_engine()
    subject = make_subject(engine, make_grant())
    context = make_context(args_size="17")
    assert isinstance(
        engine.decide(subject, ServerFacts(name="time", transport="stdio"), tool("get"), None, context), Deny
    )


def template(action: str, text: str) -> Target:
    """A URI template."""
    return Target(action=action, kind="template", name=text)


def test_a_template_is_shown_if_a_grant_could_match_one_of_its_uris():
    """Listing needs one URI that is granted; a policy that forbids the resource forbids the template of that text."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(resources=("file:///docs/*", "db://a")))
    for text, shown in (
        ("file:///docs/{name}", True),
        ("file:///{+path}", True),
        ("db://{name}", True),
        ("file:///{name}", False),
        ("http://{host}", False),
        ("file:///docs/{name", False),
    ):
        assert isinstance(ask(engine, subject, template("read_resource", text)), Permit) is shown, text
    forbidding = make_engine(
        '@id("no-db")\nforbid (principal, action, resource is Resource) when { resource.scheme == "db" };'
    )
    subject = make_subject(forbidding, make_grant(resources=("*",)))
    assert isinstance(ask(forbidding, subject, template("read_resource", "db://{name}")), Deny)
    assert isinstance(ask(forbidding, subject, template("read_resource", "file:///{name}")), Permit)


def test_a_template_is_completed_only_if_all_of_its_uris_are_granted():
    """Completion tells which URIs exist, so one granted URI is not enough; the two questions are not confused."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(resources=("file:///docs/*", "db://a")))
    for text, completed in (("file:///docs/{name}", True), ("db://{name}", False), ("file:///{+path}", False)):
        for _ in range(2):
            assert isinstance(ask(engine, subject, template("complete", text)), Permit) is completed, text
            assert isinstance(ask(engine, subject, template("read_resource", text)), Permit), text


def test_nothing_but_a_list_or_a_completion_names_a_template():
    """A template cannot be subscribed to."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(resources=("*",)))
    verdict = ask(engine, subject, template("subscribe", "file:///{name}"))
    assert isinstance(verdict, Deny)
