"""Whole messages on a stream socket."""

from __future__ import annotations

import socket
import threading

import pytest

from attestd.launch.frames import Frames, framed, receive


def test_messages_stay_whole():
    """Two messages that arrived together are read one by one, and the descriptor stays readable in between."""
    left, right = socket.socketpair()
    with left, right:
        ours = Frames(left)
        assert Frames(right).send(b"one\0two") == 11
        Frames(right).send(b"three")
        assert ours.recv(100) == b"one\0two"
        assert ours.recv(100) == b"three"
        with pytest.raises(BlockingIOError):
            ours.recv(100)


def test_half_a_message_is_waited_for():
    """Neither half a head nor half a message is taken off the socket."""
    left, right = socket.socketpair()
    with left, right:
        ours, message = Frames(left), framed(b"words")
        for cut in (2, 4, 7):
            right.send(message[:cut])
            with pytest.raises(BlockingIOError):
                ours.recv(100)
            right.send(message[cut:])
            assert ours.recv(100) == b"words"


def test_the_end_and_what_is_too_long():
    """The end of the stream reads as nothing; a message above the limit is the end of the talk, not of our memory."""
    left, right = socket.socketpair()
    right.send(framed(b"x" * 65))
    with pytest.raises(ConnectionError, match="69 bytes"):
        Frames(left).recv(64)
    left.close()
    right.close()
    left, right = socket.socketpair()
    right.close()
    assert Frames(left).recv(64) == b""
    Frames(left).close()
    assert left.fileno() == -1


def test_a_message_above_what_the_socket_holds():
    """``receive`` waits for all of it; a stream that ends in the middle is its end."""
    left, right = socket.socketpair()
    large = bytes(range(256)) * 8192
    sender = threading.Thread(target=right.sendall, args=(framed(large) + framed(b"x" * 9)[:6],))
    sender.start()
    assert receive(left) == large
    sender.join()
    right.close()
    assert receive(left) == b""
    left.close()
