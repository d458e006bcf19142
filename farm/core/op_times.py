"""Where the time of a traced window goes: delegates, operators outside them, the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from farm.core.result import ErrorReport

#: How ExecuTorch names its own events.
_METHOD, _OPERATOR, _DELEGATE = "Method::execute", "OPERATOR_CALL", "DELEGATE_CALL"


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """One event of a trace."""

    #: None where an event inside a delegate has only its id.
    name: str | None
    #: Instruction of the method; -1 for the method itself.
    instruction: int
    #: Name inside the delegate, as its backend gives it; None outside one.
    delegate_id: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One execution of a method."""

    events: tuple[TracedEvent, ...]


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All calls of operators with one name."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DelegateTime:
    """One delegate of the program, by the instruction that calls it."""

    instruction: int
    calls: int
    #: Seen from outside: the call and everything in it.
    seconds: float
    #: What its backend says of its own operators; empty where it says nothing.
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """One traced window. Tracing itself costs time, so shares count, not rates."""

    #: `pp128`, `tg8`.
    name: str
    #: Tokens of the window.
    tokens: int
    #: Executions of the method.
    calls: int
    #: Executions of the method, from their begin to their end.
    total_s: float
    #: Of it, inside delegates.
    delegates_s: float
    #: Of it, in operators outside delegates.
    operators_s: float
    #: Of it, in neither: the runtime's own steps and the tracing.
    overhead_s: float
    #: Longest first.
    delegates: tuple[DelegateTime, ...]
    #: Operators outside delegates, longest first.
    outside: tuple[OperatorTime, ...]
    #: Operators inside delegates, of all of them together, longest first. Some backends round
    #: each to microseconds, so the sum can differ from `delegates_s`.
    inside: tuple[OperatorTime, ...]

    @property
    def outside_share(self) -> float | None:
        """Share of the time that isn't inside delegates, 0..1; None for an empty window."""
        return 1 - self.delegates_s / self.total_s if self.total_s > 0 else None


@dataclass(frozen=True, slots=True)
class CellProfile:
    """One cell, traced."""

    cell_id: str
    device: str
    #: Version of the runner's build; None when the cell gave nothing.
    runner: str | None
    #: True on an emulated device: its shares are the emulator's. None when never probed.
    emulated: bool | None
    #: One for each window of the workload.
    windows: tuple[ProfileSummary, ...]
    error: ErrorReport | None = None


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """profile.json."""

    schema_version: int
    run_id: str
    name: str
    cells: tuple[CellProfile, ...]


def summarise(name: str, tokens: int, calls: Sequence[TracedCall]) -> ProfileSummary:
    """Add up a traced window.

    Args:
        name: Name of the window.
        tokens: Tokens that went through it.
        calls: Its executions, in order.
    """
    total = delegated = outside = 0.0
    delegates: dict[int, list[float]] = {}
    parts: dict[int, list[tuple[str, float]]] = {}
    operators: list[tuple[str, float]] = []
    for call in calls:
        kernels = {
            event.instruction: event.name
            for event in call.events
            if event.delegate_id is None and event.name not in (None, _METHOD, _OPERATOR, _DELEGATE)
        }
        for event in call.events:
            if event.delegate_id is not None:
                inner = parts.setdefault(event.instruction, [])
                inner.append((_kind(event.delegate_id), event.seconds))
            elif event.name == _METHOD:
                total += event.seconds
            elif event.name == _DELEGATE:
                delegated += event.seconds
                delegates.setdefault(event.instruction, []).append(event.seconds)
            elif event.name == _OPERATOR:
                outside += event.seconds
                named = kernels.get(event.instruction)
                operators.append((_plain(named) if named else "(unnamed)", event.seconds))
    return ProfileSummary(
        name=name,
        tokens=tokens,
        calls=len(calls),
        total_s=total,
        delegates_s=delegated,
        operators_s=outside,
        overhead_s=max(0.0, total - delegated - outside),
        delegates=tuple(
            sorted(
                (
                    DelegateTime(
                        instruction, len(times), sum(times), _added(parts.get(instruction, ()))
                    )
                    for instruction, times in delegates.items()
                ),
                key=lambda item: -item.seconds,
            )
        ),
        outside=_added(operators),
        inside=_added(item for items in parts.values() for item in items),
    )


def _added(items: Iterable[tuple[str, float]]) -> tuple[OperatorTime, ...]:
    found: dict[str, list[float]] = {}
    for name, seconds in items:
        found.setdefault(name, []).append(seconds)
    times = [OperatorTime(name, len(each), sum(each)) for name, each in found.items()]
    return tuple(sorted(times, key=lambda item: (-item.seconds, item.name)))


def _kind(delegate_id: str) -> str:
    """`Add (ND) #3` is the third of a kind: the kind is what adds up."""
    return re.sub(r" #\d+$", "", delegate_id)


def _plain(name: str) -> str:
    return name.removeprefix("native_call_")
