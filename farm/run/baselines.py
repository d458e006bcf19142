"""Named baselines: reports that later runs are compared with, one file each under FARM_HOME."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from farm.core.artifact import ExportResult
from farm.core.errors import ConfigError
from farm.core.flow.chain import bundle_files
from farm.core.result import ArtifactReport, CellResult, Report
from farm.core.runtime import BaselineArm, DeployFile, Program, RunnerBuild
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

    @property
    def cells(self) -> dict[str, CellResult]:
        """Results that later ones are compared with."""
        return {result.cell_id: result for result in self.report.results}


def set_baseline(root: Path, name: str, report: Report) -> Baseline:
    """Make a run the baseline of that name, replacing an older one in one step.

    Only cells that passed go in, without measurements whose trust is `invalid`.

    Raises:
        ConfigError: The name can't be used, or no cell of the run passed.
        StoreError: The disk is full or can't be written.
    """
    path = _path(root, name)
    kept = tuple(
        dataclasses.replace(
            result,
            performance=tuple(p for p in result.performance if p.trust != "invalid"),
        )
        for result in report.results
        if result.outcome == "passed"
    )
    if not kept:
        raise ConfigError(
            f"run {report.run_id} has no passed cell, so it can't be a baseline:"
            f" {report.verdict_line}"
        )
    baseline = Baseline(name, dataclasses.replace(report, results=kept))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, str(render(baseline.report)))
    return baseline


def find_baseline(root: Path, name: str) -> Baseline | None:
    """Return a baseline by name, or from a report file where `name` is a path; None: no such.

    Raises:
        ConfigError: The file is no report.
    """
    if name.endswith(".json") and Path(name).exists():
        return Baseline(name, load_report(Path(name)))
    path = _path(root, name)
    return Baseline(name, load_report(path)) if path.exists() else None


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
        found = find_arm(
            cells[cell.cell_id],
            baseline.report.run_id,
            cache,
            prepared.catalog.recipes[cell.artifact.recipe].program,
        )
        if isinstance(found, str):
            reasons[cell.cell_id] = found
        else:
            arms[cell.cell_id] = found
    return arms, reasons


def find_arm(
    cell: CellResult, run_id: str, cache: ActionCache, program: Program
) -> BaselineArm | str:
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
    return BaselineArm(run_id, artifact, runner)


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
