"""Prompts that a run's device answers for people to read: shown in the report, never judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's message, as the config names it."""

    text: str
    max_new_tokens: int = 128


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A prompt in the model's chat format."""

    ids: tuple[int, ...]
    #: The same as text, for runners that tokenise.
    text: str = ""
    #: Why there are no ids; empty where there are.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """The greedy answer of a cell's device to one prompt of the config."""

    prompt: str
    #: None where there is no answer; `reason` says why.
    text: str | None
    #: None where the runner gave text, or nothing.
    ids: tuple[int, ...] | None = None
    #: `stop` or `length`; None where the runner doesn't tell.
    stopped_by: str | None = None
    reason: str = ""


def unanswered(prompts: Sequence[Prompt], reason: str) -> tuple[AnswerReport, ...]:
    """Return that nothing was answered, and why."""
    return tuple(AnswerReport(prompt.text, None, reason=reason) for prompt in prompts)
