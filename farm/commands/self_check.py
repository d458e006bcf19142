"""A nightly tries its own gate: on a cell against itself, now and then on a slower artifact.

Both are runs of their own, after the night's, whose baseline is the night itself; they are judged
by the same path, second sittings included. What came of them stands in the night's report with the
rates of the last nights. A planted slowdown that was not found takes a green night its exit 0.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from farm import paths
from farm.config.load import load_run
from farm.core.errors import FarmError
from farm.core.nights import SelfChecked, counted
from farm.core.plan import ArtifactId
from farm.core.result import CellResult, Report
from farm.core.rules import verdict
from farm.core.rules.gates import kind_of
from farm.core.spec import SelfCheckSpec
from farm.planning.planning import RunOptions
from farm.reports.json import render
from farm.run import ending, run_folder
from farm.run.run import Finished
from farm.state.history import History

log = logging.getLogger(__name__)

#: Nights whose checks make the rates.
NIGHTS = 30

Kind = Literal["same", "slower"]
#: Runs a config to its end.
Run = Callable[[RunOptions], Finished]


@dataclass(frozen=True, slots=True)
class _Night:
    """The night, and what is needed to run one of its cells again."""

    finished: Finished
    options: RunOptions
    config: dict[str, Any]


def with_self_check(finished: Finished, options: RunOptions, home: Path, run: Run) -> Finished:
    """Try the gate as the night's config asks, and write what came of it into the night's report.

    Args:
        finished: The night.
        options: How it was started.
        home: FARM_HOME.
        run: Runs a config.
    """
    if options.config is None:
        return finished  # gone on with: the next night tries the gate
    spec, config = load_run(options.config, options.overrides)
    wanted = spec.self_check
    if wanted is None or finished.report.exit_code == verdict.EXIT_INTERRUPTED:
        return finished
    night = _Night(finished, options, config)
    with contextlib.closing(History(paths.history_db(home))) as history:
        past = history.self_checks(finished.report.name, limit=NIGHTS - 1)
        kinds: list[Kind] = ["same", "slower"] if _is_due(past, wanted) else ["same"]
        tonight = tuple(_tried(night, kind, wanted, len(past), run) for kind in kinds)
        history.add_self_checks(finished.report, tonight)
        report = judged(finished.report, tonight, past)
        ending.rewrite(report, finished.folder)
        history.add(report, finished.folder, {})
    return Finished(report, finished.folder)


def judged(
    report: Report, tonight: Sequence[SelfChecked], past: Sequence[Sequence[SelfChecked]]
) -> Report:
    """Put the checks into a report; see the module for what they do to its exit code.

    Args:
        report: The night's.
        tonight: Its checks.
        past: Those of earlier nights.
    """
    found = counted(tonight, past)
    alarms = [alarm for one in tonight if (alarm := _alarm(one))]
    report = ending.with_alarms(replace(report, self_check=found), alarms)
    blind = [one.right for one in tonight if one.kind == "slower" and not one.right]
    untried = "the gate could not be tried on its planted slowdown"
    why = untried if None in blind else "the gate did not find its planted slowdown"
    return verdict.unproven(report, why) if blind else report


def _alarm(one: SelfChecked) -> str:
    if one.right:
        return ""
    if one.right is None:
        what = "could not be tried" if one.kind == "same" else "could not be tried on a slower one"
        return f"self-check: {one.cell_id or 'the gate'} {what}: {one.reason}"
    if one.kind == "same":
        return f"self-check: {one.cell_id} is REGRESSED against itself: {one.reason}"
    said = one.verdict or "no verdict"
    return (
        f"self-check: a planted slower artifact of {one.cell_id} was not found ({said}):"
        f" {one.reason}; a green of this night proves little"
    )


def _is_due(past: Sequence[Sequence[SelfChecked]], wanted: SelfCheckSpec) -> bool:
    """Whether a slower artifact is planted: not in one of the last nights, newest first."""
    recent = past[: wanted.every - 1]
    return not any(one.kind == "slower" and one.right is not None for n in recent for one in n)


def _tried(night: _Night, kind: Kind, wanted: SelfCheckSpec, number: int, run: Run) -> SelfChecked:
    cells = [cell for cell in night.finished.report.results if _is_fit(cell)]
    if not cells:
        why = "no cell of the night passed with a speed that can be trusted"
        return SelfChecked(kind, "", "", "", None, why)
    cell = cells[number % len(cells)]  # each in its turn
    try:
        options = _options(night, cell, wanted.slower if kind == "slower" else cell.recipe)
        made = run(options)
    except FarmError as error:
        log.warning("self-check: %s", error)
        return SelfChecked(kind, "", cell.cell_id, "", None, error.message)
    return _outcome(kind, cell.cell_id, made)


def _is_fit(cell: CellResult) -> bool:
    trusted = any(
        p.regime == "warm" and p.unit == "tok/s" and p.trust != "invalid" and p.median is not None
        for p in cell.performance
    )
    return cell.outcome == "passed" and trusted and not cell.device.emulated


def _outcome(kind: Kind, cell_id: str, made: Finished) -> SelfChecked:
    (result,) = made.report.results
    compared = result.baseline
    run_id = made.report.run_id
    if compared is None or compared.method != "paired":
        why = result.reason or "it was not measured side by side"
        return SelfChecked(kind, run_id, cell_id, "", None, why)
    lost = [m.metric for m in compared.metrics if m.verdict == "REGRESSED"]
    if kind == "same":
        return SelfChecked(kind, run_id, cell_id, compared.verdict, not lost, compared.reason)
    speeds = [m for m in compared.metrics if kind_of(m.metric) == "speed"]
    if not any(m.ratio is not None for m in speeds):  # a device in trouble is no miss of the gate
        return SelfChecked(kind, run_id, cell_id, compared.verdict, None, "no speed can be trusted")
    found = any(kind_of(metric) == "speed" for metric in lost)
    return SelfChecked(kind, run_id, cell_id, compared.verdict, found, compared.reason)


def _options(night: _Night, cell: CellResult, recipe: str) -> RunOptions:
    """A run of one cell of the night beside what it ran, under the night's own tolerances."""
    report, folder = night.finished.report, night.finished.folder
    model = next(
        entry
        for entry in night.config["models"]
        if (entry if isinstance(entry, str) else entry["name"]) == cell.model
    )
    old = ArtifactId(cell.model, cell.recipe, cell.toolchain)
    new = ArtifactId(cell.model, recipe, cell.toolchain)
    place = f":{cell.device.name}"
    middle = cell.cell_id.removeprefix(str(old)).rpartition(":")[0]
    renamed = replace(cell, cell_id=f"{new}{middle}{place}", origin_run=report.run_id)
    baseline = folder / f"self-check-{recipe}.json"
    run_folder.write_text(baseline, render(replace(report, results=(renamed,))))
    matrix = {
        "recipe": [recipe],
        "toolchain": [cell.toolchain],
        "runner": [cell.runner.name],
        "threads": [cell.threads or "auto"],
    }
    return replace(
        night.options,
        baseline=str(baseline),
        against_itself=True,
        overrides=(
            *night.options.overrides,
            f"name={json.dumps(f'{report.name}-self-check')}",
            f"models={json.dumps([model])}",
            f"matrix={json.dumps(matrix)}",
            f"devices={json.dumps([{'each': f'name={cell.device.name}'}])}",
            "workload.sustained_s=null",
            "prompts=[]",
            "waivers=[]",
            "exclude=[]",
            "self_check=null",
        ),
    )
