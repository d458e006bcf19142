"""A conversation with a model on a device: what is said, and what of it fits its context. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the device answered. Times are of its own clock."""

    ids: tuple[int, ...]
    #: `stop`, `length` or `context`.
    stopped_by: str
    #: From the start of the prefill until the first token was chosen; None: no token.
    ttft_s: float | None
    #: Tokens a second after the first one; None: fewer than two.
    rate_tok_s: float | None
    #: Loading the model before it; None: it was loaded already.
    load_s: float | None


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the device chose it."""

    id: int
    t_ns: int


def fitted(
    messages: Sequence[Message],
    encode: Callable[[list[dict[str, str]]], list[int]],
    room: int,
) -> tuple[list[int], int]:
    """Return token ids of a conversation with room for the reply, and how many turns fell out.

    The oldest turns go first, in pairs of question and answer; the system's message and the newest
    question stay.

    Args:
        messages: The conversation; the last one is the user's.
        encode: Makes token ids of messages.
        room: Most tokens of the prompt.

    Raises:
        ValueError: Not even the newest question fits; says how long it is.
    """
    head = [m for m in messages[:1] if m.role == "system"]
    rest = list(messages[len(head) :])
    dropped = 0
    while True:
        said = [{"role": m.role, "content": m.content} for m in (*head, *rest)]
        ids = encode(said)
        if len(ids) <= room:
            return ids, dropped
        if len(rest) == 1:
            raise ValueError(f"the message is {len(ids)} tokens long, {room} fit")
        gone = min(2, len(rest) - 1)
        rest, dropped = rest[gone:], dropped + gone


class ReplyReader:
    """Reads the lines of farm-runner for one reply, as they arrive.

    Args:
        on_token: Called with each token.
    """

    def __init__(self, on_token: Callable[[Token], None]) -> None:
        self._on_token = on_token
        self._tokens: list[Token] = []
        self._load_ns: int | None = None
        self._generated: dict[str, object] | None = None
        #: The runner's own error: code and message.
        self.error: tuple[str, str] | None = None

    def line(self, line: bytes) -> None:
        """Take in a line; what isn't the protocol's is left out."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        match value:
            case {"type": "token", "id": int(index), "t_ns": int(t_ns)}:
                token = Token(index, t_ns)
                self._tokens.append(token)
                self._on_token(token)
            case {"type": "loaded", "load_ns": int(load_ns)}:
                self._load_ns = load_ns
            case {"type": "generated"}:
                self._generated = value
            case {"type": "error"}:
                code, message = value.get("code"), value.get("message")
                self.error = str(code)[:80], str(message)[:500]
            case {"error": {"code": str(code), "message": str(message)}}:  # of farm-helper
                self.error = code[:80], message[:500]

    @property
    def complete(self) -> bool:
        """Whether the reply has come to its end."""
        return self._generated is not None

    def reply(self, *, loaded_before: bool = False) -> Reply | None:
        """Return the reply; None where it never came to its end, or garbles its ids."""
        match self._generated:
            case {"ids": list(ids), "stopped_by": str(stopped_by), "start_ns": int(start)}:
                if [token.id for token in self._tokens] != ids:
                    return None
            case _:
                return None
        first = self._tokens[0].t_ns if self._tokens else None
        last = self._tokens[-1].t_ns if self._tokens else 0
        span = 0 if first is None else last - first
        load = None if self._load_ns is None or loaded_before else self._load_ns / 1e9
        return Reply(
            ids=tuple(token.id for token in self._tokens),
            stopped_by=stopped_by,
            ttft_s=None if first is None else (first - start) / 1e9,
            rate_tok_s=(len(self._tokens) - 1) / (span / 1e9) if span > 0 else None,
            load_s=load,
        )


class TextStream:
    """Text of tokens as it grows: a character of several tokens appears once it is whole.

    Args:
        decode: Makes text of token ids.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = ""

    def add(self, token_id: int) -> str:
        """Take in a token; return the text that is new."""
        self._ids.append(token_id)
        return self._grown(self._decode(self._ids).rstrip("\N{REPLACEMENT CHARACTER}"))

    def rest(self) -> str:
        """Return what was held back, at the end."""
        return self._grown(self._decode(self._ids))

    def _grown(self, text: str) -> str:
        if not text.startswith(self._shown):
            return ""  # a decoder that changes what it said: the whole text is in the reply
        new, self._shown = text[len(self._shown) :], text
        return new
