"""Where two stages of a cell part: what was looked at, how far it was off, and who is blamed."""

from __future__ import annotations

from dataclasses import dataclass

#: From the checkpoint to the bytes that were written.
ARTIFACT = "source -> artifact"
HOST, DEVICE = "eager_quantised -> host_pte", "host_pte -> device_pte"


@dataclass(frozen=True, slots=True)
class Tap:
    """Columns of an observed program's row: one value, of the last token of a forward."""

    #: Counted from 0; None outside the layers.
    layer: int | None
    #: What computed it: one operator, or a piece of a layer that a delegate hides.
    operator: str
    width: int
    #: Whether activations were rounded to integers on the way: a unit more or less is no fault.
    rounded: bool = False
    #: Place among the taps of the value that it adds to, which is taken out; None: it adds to none.
    adds_to: int | None = None


@dataclass(frozen=True, slots=True)
class OperatorError:
    """One value of one stage, computed alone from what that stage gave it."""

    stage: str
    layer: int | None
    operator: str
    #: In multiples of what is allowed; None where it gave no numbers.
    error: float | None
    #: Relative errors behind it: of a typical row, and of the worst column.
    row_error: float | None
    column_error: float | None
    parts: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Blame:
    """The first place that is beyond its tolerance."""

    stage: str
    layer: int | None
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class DriverRow:
    """One driver of the program, held against one token at a time in the same runtime."""

    name: str
    #: None: it could not be asked.
    parts: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `farm diagnose` found of one cell."""

    schema_version: int
    run_id: str
    cell_id: str
    #: None: nothing that was looked at parts.
    blame: Blame | None
    #: One line for people.
    sentence: str
    #: Whether the program with its values brought out gives the logits of the cell's own:
    #: by stage `equal`, or why that isn't known or not so.
    observed: tuple[tuple[str, str], ...]
    rows: tuple[OperatorError, ...]
    #: What was not looked at, and why.
    unseen: tuple[str, ...]
    #: Positions of the text that were computed.
    tokens: int
    seconds: float
    #: Only where they were asked for.
    drivers: tuple[DriverRow, ...] = ()
