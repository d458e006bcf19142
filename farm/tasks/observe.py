"""Looks into an artifact while it runs: the whole at its delegates' borders, then one layer inside.

Each value that a stage computed is computed again by PyTorch from what that stage was given, so
an error stays where it arose. It knows no run, device or folder: sides say how they run a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from farm.core.artifact import ExportResult, LogitsPass, Recipe
from farm.core.diagnosis import DEVICE, Blame, OperatorError, Tap
from farm.core.errors import BadOutput, ExportError
from farm.core.runtime import LaunchRequest
from farm.judge.diagnosis import blamed, first_parting, operator_errors, weight_errors
from farm.judge.logits import Matrix

if TYPE_CHECKING:
    from models.checkpoint import Checkpoint
    from models.lowering.written import Written

#: The one pass of an observed program.
PASS = "decode"
#: Positions that are looked at.
TOKENS = 64
#: What crosses the borders of delegates, and the operators of the layer that compute it.
_SAME = {
    "query": "rope of the query",
    "key": "rope of the key",
    "value": "attention.wv",
    "attention": "attention",
    "after attention": "sum after feed_forward",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is looked into."""

    checkpoint: Checkpoint
    recipe: Recipe
    tokens: tuple[int, ...]
    export: ExportResult


@dataclass(frozen=True, slots=True)
class Side:
    """One stage that runs programs."""

    #: As reports name it: farm.core.diagnosis.HOST or DEVICE.
    stage: str
    #: What it runs in the cell, and its external weights.
    artifact: Path
    data: Path | None
    #: Gives the rows of a program's pass; see `request`.
    run: Callable[[Path, LaunchRequest], Matrix]
    #: Rows of logits that the artifact itself gave there.
    own: Matrix


@dataclass(frozen=True, slots=True)
class Inside:
    """One layer, observed: all that is needed to show it to somebody else."""

    stage: str
    layer: int
    program: Path
    taps: tuple[Tap, ...]
    #: Residual stream before the layer, rows by position.
    inputs: Matrix
    found: Matrix
    expected: Matrix
    request: LaunchRequest


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen."""

    blame: Blame | None
    rows: tuple[OperatorError, ...]
    #: By stage, whether bringing values out changed what is computed.
    observed: tuple[tuple[str, str], ...]
    #: The layer of each side that was looked into.
    inside: tuple[Inside, ...]
    unseen: tuple[str, ...]


def request(tokens: Sequence[int], threads: int) -> LaunchRequest:
    """The launch of an observed program: its tokens one by one."""
    one = LogitsPass(PASS, (1,) * len(tokens))
    return LaunchRequest(threads=threads, tokens=tuple(tokens), passes=(one,))


def look(
    subject: Subject,
    sides: Sequence[Side],
    folder: Path,
    *,
    threads: int = 0,
    layer: int | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Looked:
    """Look into a model on each side.

    Args:
        subject: The model.
        sides: Stages, the earlier ones first.
        folder: For programs.
        threads: Of the runner; 0 leaves them to it.
        layer: Look into this one, whatever is found; None: into the first that parts.
        say: Receives progress.

    Raises:
        ExportError: This artifact's layers can't be told apart, or it has no such layer.
        BadOutput: A runner gave other rows than it was asked for.
        FarmError: From a side.
    """
    return _Look(subject, sides, folder, threads, say).run(layer)


class _Look:
    def __init__(
        self,
        subject: Subject,
        sides: Sequence[Side],
        folder: Path,
        threads: int,
        say: Callable[[str], None],
    ) -> None:
        self._subject, self._sides, self._folder = subject, sides, folder
        self._threads, self._say = threads, say
        self._programs: dict[Path, tuple[Path, tuple[Tap, ...]]] = {}
        self._observed: list[tuple[str, str]] = []
        self._found: dict[str, tuple[tuple[Tap, ...], Matrix]] = {}

    def run(self, layer: int | None) -> Looked:
        subject = self._subject
        layers = subject.checkpoint.config.layers
        if layer is not None and not 0 <= layer < layers:
            raise ExportError(f"layer {layer}: the model has layers 0 to {layers - 1}")
        unseen = () if subject.export.weights else (f"weights: {subject.export.no_weights}",)
        weights = weight_errors(subject.export)
        pieces = [row for side in self._sides for row in self._whole(side)]
        inside: list[Inside] = []
        operators: list[OperatorError] = []
        for side in self._sides:
            which = self._layer_of(side, pieces) if layer is None else layer
            if which is not None:
                one = self._one_layer(side, which)
                inside.append(one)
                operators += operator_errors(side.stage, one.taps, one.found, one.expected)
        blame = blamed(weights, pieces, operators)
        rows = (*weights, *pieces, *operators)
        return Looked(blame, rows, tuple(self._observed), tuple(inside), unseen)

    def _layer_of(self, side: Side, pieces: Sequence[OperatorError]) -> int | None:
        """The layer to look into: the first piece that parts; what comes last ends the last one."""
        piece = first_parting(row for row in pieces if row.stage == side.stage)
        if piece is None or piece.operator == "tok_embeddings":
            return None
        return self._subject.checkpoint.config.layers - 1 if piece.layer is None else piece.layer

    def _whole(self, side: Side) -> list[OperatorError]:
        from models.observing.expected import expected_model
        from models.observing.programs import observe_model

        subject = self._subject
        if side.artifact not in self._programs:
            self._say("putting the program together, its values brought out")
            path = self._folder / f"observed-{len(self._programs)}.pte"
            taps = observe_model(subject.checkpoint, subject.recipe, _written(side), path)
            self._programs[side.artifact] = path, taps
        program, taps = self._programs[side.artifact]
        self._say(f"running it: {side.stage}")
        asked = request(subject.tokens, self._threads)
        found = _rows(side.run(program, asked), asked, taps)
        self._found[side.stage] = taps, found
        self._observed.append((side.stage, _same_logits(side, found[:, : taps[0].width])))
        self._say("computing each piece alone")
        expected = expected_model(
            subject.checkpoint, subject.recipe, subject.tokens, taps, np.asarray(found)
        )
        return operator_errors(side.stage, taps, found, expected)

    def _one_layer(self, side: Side, layer: int) -> Inside:
        from models.observing.expected import expected_layer
        from models.observing.programs import observe_layer

        subject = self._subject
        taps, whole = self._found[side.stage]
        inputs = np.ascontiguousarray(_stream(taps, whole, layer))
        path = self._folder / f"layer-{layer}-{side.stage.rpartition(' ')[2]}.pte"
        self._say(f"looking into layer {layer}: {side.stage}")
        seen = observe_layer(
            subject.checkpoint, subject.recipe, _written(side), layer, inputs, path
        )
        asked = request(range(len(inputs)), self._threads)
        found = _rows(side.run(path, asked), asked, seen)
        expected = expected_layer(
            subject.checkpoint, subject.recipe, layer, inputs, np.asarray(found)
        )
        same = _same_values((taps, whole), (seen, found), layer)
        self._observed.append((f"{side.stage}, layer {layer}", same))
        return Inside(side.stage, layer, path, seen, inputs, found, expected, asked)


def _written(side: Side) -> Written:
    from models.lowering.written import Written

    return Written(side.artifact, side.data)


def _rows(found: Matrix, asked: LaunchRequest, taps: Sequence[Tap]) -> Matrix:
    shape = len(asked.tokens), sum(one.width for one in taps)
    if found.shape != shape:
        raise BadOutput(f"an observed program gave rows of {found.shape}, not {shape}")
    return found


def _columns(taps: Sequence[Tap], place: int) -> slice:
    start = sum(one.width for one in taps[:place])
    return slice(start, start + taps[place].width)


def _stream(taps: Sequence[Tap], rows: Matrix, layer: int) -> Matrix:
    """The residual stream before a layer."""
    wanted = (None, "tok_embeddings") if layer == 0 else (layer - 1, "after attention")
    place = next(i for i, one in enumerate(taps) if (one.layer, one.operator) == wanted)
    return rows[:, _columns(taps, place)]


def _same_logits(side: Side, found: Matrix) -> str:
    own = side.own[: len(found)]
    if own.shape != found.shape:
        return f"not compared: its own logits are {own.shape}, not {found.shape}"
    return _alike(own, found)


def _alike(own: Matrix, found: Matrix) -> str:
    if np.array_equal(own, found, equal_nan=True):
        return "equal"
    with np.errstate(invalid="ignore", over="ignore"):
        far = float(np.abs(own - found).max())
    return f"the observed program differs: by up to {far:.3g}"


def _same_values(
    whole: tuple[Sequence[Tap], Matrix], inside: tuple[Sequence[Tap], Matrix], layer: int
) -> str:
    """Whether a layer computes the same when the values inside its delegates are brought out."""
    places = {one.operator: number for number, one in enumerate(inside[0])}
    worst = "equal"
    for number, one in enumerate(whole[0]):
        if one.layer != layer:
            continue
        own = whole[1][:, _columns(whole[0], number)]
        found = inside[1][:, _columns(inside[0], places[_SAME[one.operator]])]
        if (said := _alike(own, found)) != "equal":
            worst = f"{one.operator}: {said}"
    return worst


def device_of(inside: Sequence[Inside]) -> Inside:
    """What was looked into on a device, else on the host."""
    return next((one for one in inside if one.stage == DEVICE), inside[-1])
