"""A conversation: what fits, the reply line by line, and text that grows by whole characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.conversation import Message, ReplyReader, TextStream, Token, fitted


def encode(messages: list[dict[str, str]]) -> list[int]:
    return [ord(c) for m in messages for c in m["content"]]


def test_the_oldest_turns_fall_out_in_pairs_and_the_system_stays() -> None:
    turns = [Message("system", "S"), Message("user", "one"), Message("assistant", "two"),
             Message("user", "three")]  # fmt: skip
    assert fitted(turns, encode, 12) == (encode([{"content": "Sonetwothree"}]), 0)
    assert fitted(turns, encode, 11) == (encode([{"content": "Sthree"}]), 2)
    with pytest.raises(ValueError, match="6 tokens long, 5 fit"):
        fitted(turns, encode, 5)


def line(**members: object) -> bytes:
    return json.dumps(members).encode()


def read(*lines: bytes) -> tuple[ReplyReader, list[Token]]:
    seen: list[Token] = []
    reader = ReplyReader(seen.append)
    for one in lines:
        reader.line(one)
    return reader, seen


LINES = (
    line(type="loaded", load_ns=2_000_000_000),
    line(type="token", id=7, t_ns=1_500_000_000),
    line(type="token", id=8, t_ns=1_600_000_000),
    line(type="generated", ids=[7, 8], stopped_by="stop", start_ns=1_000_000_000),
)


def test_a_reply_has_the_devices_own_times() -> None:
    reader, seen = read(*LINES)
    assert [token.id for token in seen] == [7, 8]
    reply = reader.reply()
    assert reply is not None
    assert (reply.ids, reply.stopped_by) == ((7, 8), "stop")
    assert (reply.ttft_s, reply.load_s) == (0.5, 2.0)
    assert reply.rate_tok_s == pytest.approx(10.0)
    before = reader.reply(loaded_before=True)
    assert before is not None
    assert before.load_s is None


def test_a_reply_that_broke_off_or_contradicts_its_tokens_is_none() -> None:
    assert read(*LINES[:3])[0].reply() is None
    assert not read(*LINES[:3])[0].complete
    assert read(LINES[1], LINES[3])[0].reply() is None
    reader, _ = read(line(type="error", code="load_failed", message="no"))
    assert reader.error == ("load_failed", "no")
    assert reader.reply() is None


def test_a_reply_without_tokens_has_no_times() -> None:
    reader, _ = read(line(type="generated", ids=[], stopped_by="stop", start_ns=1))
    reply = reader.reply()
    assert reply is not None
    assert (reply.ids, reply.ttft_s, reply.rate_tok_s) == ((), None, None)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_foreign_lines_change_nothing(lines: list[bytes]) -> None:
    reader, seen = read(*lines)
    assert reader.reply() is None
    assert seen == []


@given(st.text(max_size=30))
def test_streamed_text_is_the_whole_text_and_never_takes_back(text: str) -> None:
    content = text.encode()
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"))
    pieces = [stream.add(byte) for byte in content]
    assert "".join([*pieces, stream.rest()]) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
