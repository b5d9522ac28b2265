"""Addresses of back ends: one reading only, and what is within the origin."""

from __future__ import annotations

import pytest

from attestd.wire.urls import UrlError, parse_url, within_origin


@pytest.mark.parametrize(
    ("text", "authority", "target", "loopback"),
    [
        ("http://127.0.0.1:8000/mcp", "127.0.0.1:8000", "/mcp", True),
        ("http://[::1]:8000/mcp?a=b", "[::1]:8000", "/mcp?a=b", True),
        ("http://LOCALHOST", "localhost", "/", True),
        ("https://mcp.example.org/v1/mcp", "mcp.example.org", "/v1/mcp", False),
        ("https://mcp.example.org:443?x", "mcp.example.org", "/?x", False),
        ("http://127.8.9.1/", "127.8.9.1", "/", True),
        ("https://192.0.2.1/", "192.0.2.1", "/", False),
    ],
)
def test_good_ones(text: str, authority: str, target: str, loopback: bool):
    """Host header, target, and whether it can only be this machine."""
    url = parse_url(text)
    assert (url.authority, url.target, url.loopback) == (authority, target, loopback)
    assert parse_url(url.text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mcp",
        "ftp://host/",
        "http:///mcp",
        "http://user@host/",
        "http://user:word@127.0.0.1/",
        "http://host/#part",
        "http://host\\@evil/",
        "http://ho st/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host:0/",
        "http://host:99999/",
        "http://host:/",
        "http://[::g]/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://höst/",
        "HTTP://host/",
        "http://host/" + "a" * 3000,
    ],
)
def test_bad_ones(text: str):
    """Whatever two readers could read differently is refused."""
    with pytest.raises(UrlError):
        parse_url(text)


@pytest.mark.parametrize(
    ("location", "target"),
    [("/mcp/", "/mcp/"), ("other?x=1", "/a/other?x=1"), ("https://h.example/b#c", "/b"), ("?y", "/a/mcp?y")],
)
def test_within_the_origin(location: str, target: str):
    """Relative and absolute references to the same place."""
    found = within_origin(parse_url("https://h.example/a/mcp"), location)
    assert (found.authority, found.target) == ("h.example", target)


@pytest.mark.parametrize(
    "location",
    [
        "http://h.example/a",
        "https://h.example:444/a",
        "https://h.example.evil/a",
        "//evil.example/a",
        "https://evil.example/a",
        "https://h.example@evil.example/",
        "/\\evil.example",
        "javascript:x",
        "https://h.example/\u0430",
        "https://[::1",
        "x" * 3000,
    ],
)
def test_outside(location: str):
    """Another scheme, port or host, or no URL at all."""
    with pytest.raises(UrlError):
        within_origin(parse_url("https://h.example/a"), location)
