"""Named baselines: reports that later runs are compared with, one file each under FARM_HOME.

A baseline is made cell by cell: a device that was away keeps the cells of the night it was there.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

from farm.core.artifact import ExportResult
from farm.core.errors import ConfigError
from farm.core.flow.chain import bundle_files
from farm.core.names import meant
from farm.core.result import ArtifactReport, CellResult, Report
from farm.core.rules.gates import kind_of
from farm.core.runner import DeployFile, Program, RunnerBuild
from farm.core.runtime import BaselineArm
from farm.planning.planning import Prepared
from farm.reports.json import load_report, render
from farm.run.run_folder import write_text
from farm.store.actions import ActionCache, runner_key
from farm.store.objects import ContentStore

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline and what its run found, by cell id."""

    name: str
    report: Report
    #: Whether its arm is measured also where it is the candidate, file by file.
    even_if_same: bool = False
    #: Whether what a first look leaves open stays so: whoever asks decides by more runs.
    one_look: bool = False

    @property
    def cells(self) -> dict[str, CellResult]:
        """Results that later ones are compared with; each names the run that it comes from."""
        return {
            result.cell_id: dataclasses.replace(
                result, origin_run=result.origin_run or self.report.run_id
            )
            for result in self.report.results
        }


@dataclass(frozen=True, slots=True)
class Change:
    """What setting a baseline did, by cell id."""

    baseline: Baseline
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    #: Cells that the run didn't judge good: they stay those of an earlier run, and which one.
    kept: dict[str, str]
    #: Cells of the run that were not taken, and why.
    refused: dict[str, str]
    #: Cells taken that were proven slower than their baseline, within what was accepted.
    slower: tuple[str, ...] = ()


def set_baseline(root: Path, name: str, report: Report) -> Change:
    """Take a run's good cells into the baseline of that name, in one step.

    A cell is taken that passed and has a rate whose trust isn't `invalid`; numbers that are stay
    out. Cells that the run has nothing good of stay those of the run that gave them.

    Raises:
        ConfigError: The name can't be used, an older file is no report, or the run has no good
            cell.
        StoreError: The disk is full or can't be written.
    """
    path = _path(root, name)
    before = Baseline(name, load_report(path)).cells if path.exists() else {}
    refused = {r.cell_id: why for r in report.results if (why := _refused(r))}
    taken = {
        result.cell_id: dataclasses.replace(
            result,
            performance=tuple(p for p in result.performance if p.trust != "invalid"),
            origin_run=report.run_id,
        )
        for result in report.results
        if result.cell_id not in refused
    }
    if not taken:
        reasons = "; ".join(f"{cell}: {why}" for cell, why in list(refused.items())[:3])
        raise ConfigError(
            f"run {report.run_id} has no cell that can be a baseline: {reasons or 'it is empty'}"
        )
    kept = {cell: result for cell, result in before.items() if cell not in taken}
    merged = dataclasses.replace(report, results=(*taken.values(), *kept.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, str(render(merged)))
    return Change(
        Baseline(name, merged),
        added=tuple(cell for cell in taken if cell not in before),
        replaced=tuple(cell for cell in taken if cell in before),
        kept={cell: result.origin_run for cell, result in kept.items()},
        refused=refused,
        slower=tuple(c for c, result in taken.items() if _lost_something(result)),
    )


def _lost_something(result: CellResult) -> bool:
    """Whether a speed was SLOWER: night by night such losses add up to any size."""
    metrics = () if result.baseline is None else result.baseline.metrics
    return any(m.verdict == "SLOWER" and kind_of(m.metric) == "speed" for m in metrics)


def _refused(result: CellResult) -> str:
    """Say why a cell can't be a baseline; empty where it can."""
    if result.outcome != "passed":
        return result.outcome
    rates = [p for p in result.performance if p.regime == "warm" and p.unit == "tok/s"]
    if not any(p.trust != "invalid" and p.median is not None for p in rates):
        return "none of its speeds can be trusted"
    return ""


def export_text(baseline: Baseline) -> str:
    """Return a baseline as JSON for a repository: in a fixed order, without single samples."""
    report = baseline.report
    cells = [
        dataclasses.replace(
            cell,
            performance=tuple(dataclasses.replace(p, samples=()) for p in cell.performance),
            attempts=(),
        )
        for cell in baseline.cells.values()
    ]
    ordered = sorted(cells, key=lambda cell: cell.cell_id)
    slim = dataclasses.replace(report, results=tuple(ordered), devices=(), exports=(), alarms=())
    data = json.loads(str(render(slim)))
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def find_baseline(root: Path, name: str) -> Baseline | None:
    """Return a baseline by name, or from a report file where `name` is a path; None: no such.

    Raises:
        ConfigError: The file is no report, or there is no such file.
    """
    if name.endswith(".json") or "/" in name:
        if not Path(name).is_file():
            raise ConfigError(
                f"baseline {name}: there is no such file; `farm baseline export NAME` writes one"
            )
        return Baseline(name, load_report(Path(name)))
    path = _path(root, name)
    return Baseline(name, load_report(path)) if path.exists() else None


def unknown(root: Path, name: str) -> ConfigError:
    """Return the error of a baseline that isn't there, with the name that was meant."""
    near = meant(name, [path.stem for path in root.glob("*.json")])
    return ConfigError(
        f"no baseline {name!r}{near}; `farm baseline list` shows those that exist,"
        " `farm baseline set RUN NAME` makes one"
    )


def list_baselines(root: Path) -> list[Baseline]:
    """Return every baseline, by name.

    Raises:
        ConfigError: One of the files is no report.
    """
    return [Baseline(path.stem, load_report(path)) for path in sorted(root.glob("*.json"))]


def find_arms(
    prepared: Prepared, baseline: Baseline | None, store: ContentStore
) -> tuple[dict[str, BaselineArm], dict[str, str]]:
    """What of the baseline can run beside each cell, and why others can't, by cell id."""
    if baseline is None:
        return {}, {}
    cache = ActionCache(store)
    arms, reasons = {}, {}
    cells = baseline.cells
    for cell in prepared.plan.cells:
        if cell.cell_id not in cells:
            continue
        program = prepared.catalog.recipes[cell.artifact.recipe].program
        found = find_arm(cells[cell.cell_id], cache, program)
        if isinstance(found, str):
            reasons[cell.cell_id] = found
        else:
            arms[cell.cell_id] = dataclasses.replace(found, even_if_same=baseline.even_if_same)
    return arms, reasons


def unplanned(prepared: Prepared, baseline: Baseline) -> list[str]:
    """Say which cells of a baseline a run doesn't plan: a phone that nobody attached, for example.

    Nothing else misses a device that no inventory names.
    """
    plan = prepared.plan
    planned = {cell.cell_id for cell in (*plan.cells, *(skip.cell for skip in plan.skips))}
    lost = [cell_id for cell_id in baseline.cells if cell_id not in planned]
    if not lost:
        return []
    count = f"{len(lost)} cell{'' if len(lost) == 1 else 's'}"
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    names = ", ".join(lost[:3])
    return [f"baseline {baseline.name} has {count} that this run doesn't plan: {names}{more}"]


def find_arm(cell: CellResult, cache: ActionCache, program: Program) -> BaselineArm | str:
    """Find what a baseline's cell ran, so that it can run again beside a candidate.

    Returns:
        The arm, or why there is none: a file that is no longer in the content store.

    Raises:
        StoreError: The store can't be read.
    """
    artifact = _artifact(cell.artifact, cache, program)
    if artifact is None:
        name = f"{cell.model}/{cell.recipe}"
        return f"the baseline's artifact of {name} is no longer in the content store"
    sha256 = cell.runner.sha256
    runner = None if sha256 is None else cache.lookup(runner_key(sha256), RunnerBuild)
    if runner is None:
        return f"the baseline's runner {(sha256 or '')[:12]} is no longer in the content store"
    return BaselineArm(cell.origin_run, artifact, runner)


def _artifact(
    report: ArtifactReport, cache: ActionCache, program: Program
) -> tuple[DeployFile, ...] | None:
    """Files of an artifact, as a job deploys them; None when one of them is gone."""
    if report.key is None or report.sha256 is None or report.size_bytes is None:
        return None
    export = cache.lookup(f"export-{report.key}", ExportResult)
    if export is not None and export.bundle.pte.sha256 == report.sha256:
        return bundle_files(export.bundle, program)
    return None


def _path(root: Path, name: str) -> Path:
    if not _NAME.match(name):
        raise ConfigError(
            f"baseline {name!r}: a name has letters, digits and . _ + - only, up to 100 of them"
        )
    return root / f"{name}.json"
