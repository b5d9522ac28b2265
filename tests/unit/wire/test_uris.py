"""One spelling for every resource."""

from __future__ import annotations

import pytest

from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.uris import canonical, is_template, template


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///a/b.txt", "file:///a/b.txt"),
        ("FILE:///a", "file:///a"),
        ("file:/a", "file:///a"),
        ("file://localhost/a", "file:///a"),
        ("file://LOCALHOST/a", "file:///a"),
        ("file://Server/share", "file://server/share"),
        ("file:///%61%2Db%7e", "file:///a-b~"),
        ("file:///a%20b", "file:///a%20b"),
        ("file:///a b", "file:///a%20b"),
        ("file:///a%c3%a9", "file:///a%C3%A9"),
        ("file:///a\u00e9", "file:///a%C3%A9"),
        ("HTTPS://Example.COM:8443/Path?Q=1#F", "https://example.com:8443/Path?Q=1#F"),
        ("http://[2001:DB8::1]/x", "http://[2001:db8::1]/x"),
        ("postgres://User@Host/db/schema", "postgres://User@host/db/schema"),
        ("memo://Insights", "memo://insights"),
        ("demo://resource/static/document/architecture.md", "demo://resource/static/document/architecture.md"),
        ("urn:isbn:0451450523", "urn:isbn:0451450523"),
        ("gh://repo/feature%2Fbranch", "gh://repo/feature%2Fbranch"),
        ("x://a/%25", "x://a/%25"),
        ("x://a/{b}|c", "x://a/%7Bb%7D%7Cc"),
        ("x://a/...", "x://a/..."),
        ("x://a/.hidden", "x://a/.hidden"),
    ],
)
def test_canonical(uri: str, expected: str):
    """Spellings that every reader takes for the same become the same, and stay so."""
    assert canonical(uri) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a" * 9000,
        "x:" + "a" * 8191,
        None,
        5,
        ["file:///a"],
        "/etc/passwd",
        "etc/passwd",
        "//host/x",
        ":x",
        "1a:b",
        "f\u0131le:///a",
        "file:///a/../b",
        "file:///a/./b",
        "file:///..",
        "file:///a/..",
        "x:../b",
        "x:a/../b",
        "x://../a",
        "x://a/b?../c",
        "x://a/b?p=..",
        "x://a/b#../c",
        "file:///a/%2e%2e/b",
        "file:///a/%2E./b",
        "file:///a/.%2e",
        "x://a/..%2f..%2fb",
        "x://a/%2e%2e%2fb",
        "x://a/%252e%252e/b",
        "x://a/%25252e%25252e/b",
        "x://a/..%5cb",
        "x://a/%2525252525252e",
        "file:///a\\b",
        "file:\\\\\\a",
        "x://a/%5Cb",
        "x://a\\..\\b",
        "file:///a\0",
        "file:///a%00",
        "file:///a%2500",
        "file:///a\nb",
        "file:///a%0ab",
        "file:///a\x7f",
        "file:///a\u0085",
        "file:///a\u2028",
        "file:///a\u00a0b",
        "file:///a\u202eb",
        "file:///a\ufeff",
        " file:///a",
        "file:///a ",
        "file:///a%",
        "file:///a%4",
        "file:///a%zz",
        "file:///a%u0041",
        "x://a/%c0%af",
        "x://a/%ff",
        "x://a/%ed%a0%80",
        "http://a@b@c/",
        "http://ho st/",
        "http://h%61st/",
        "http://h\u00f6st/",
        "http://a:b:c/",
        "http://host:80x/",
        "http://[::1/",
        "http://a{b}/",
        "file:a",
        "file:",
        "file://",
        "file://a",
        "file:////etc",
        "file:///a//b",
        "file:///a?b",
        "file:///a#b",
        "file:///a%2fb",
    ],
)
def test_refused(uri: object):
    """What two readers may take for two things is refused with invalid params, on the request's id."""
    with pytest.raises(WireError) as caught:
        canonical(uri, 7)
    assert (caught.value.cause, caught.value.rpc_code, caught.value.request_id) == (Cause.MALFORMED, -32602, 7)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("MEMO://{userId}/x", "memo://{userId}/x"), ("file:///{+path}", "file:///{+path}"), ("x://a{?q}", "x://a{?q}")],
)
def test_template(uri: str, expected: str):
    """Of a template only the scheme is lowered: variables have a case."""
    assert template(uri) == expected


@pytest.mark.parametrize("uri", ["", "a/{b}", "x://{a}/../b", "x://{a}\n", "x://{a}/%2e%2e", 5])
def test_template_refused(uri: object):
    """Templates are held to the same characters and segments."""
    with pytest.raises(WireError):
        template(uri)


def test_is_template():
    """A template is text with a variable."""
    assert is_template("x://{a}")
    assert not is_template("x://a")
    assert not is_template(None)
