"""Runs from Python: start one, load one, look at it. Everything heavy is imported when it is used.

Names, parameters, properties and columns of frames are only ever added to; see docs/python.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `import farm` has to stay cheap
    from pandas import DataFrame

    from farm.core.result import Report
    from farm.core.view import ViewEvent
    from farm.reports.records import Table


@dataclass(frozen=True, slots=True)
class Run:
    """A run that ended, or what is known of one that was killed."""

    #: report.json as values; its types follow `farm schema`.
    report: Report
    #: Its run folder; of a bundle, where the bundle was unpacked.
    folder: Path

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.report.run_id

    @property
    def exit_code(self) -> int:
        """What `farm run` ended with: 0 passed, 1 a gate failed, 3 too little could be judged."""
        return self.report.exit_code

    @property
    def passed(self) -> bool:
        """Whether every judged cell passed and enough was judged; False of what nobody judged."""
        return self.exit_code == 0

    @property
    def verdict(self) -> str:
        """The last line of `farm run`, with every count."""
        return self.report.verdict_line

    @property
    def alarms(self) -> tuple[str, ...]:
        """What somebody should look at although no cell failed of it."""
        return self.report.alarms

    @property
    def why(self) -> str:
        """What needs a look, a line each: cell, number, what it was or had to be; then alarms."""
        from farm.api.reasons import reasons

        return "\n".join(reasons(self.report))

    @property
    def cells(self) -> DataFrame:
        """A row for each planned cell: its parts, outcome and reason."""
        from farm.reports.records import CELLS

        return self._frame(CELLS)

    def metrics(self) -> DataFrame:
        """A row for each cell, metric and regime: median, interval, trust; NaN without a number."""
        from farm.reports.records import METRICS

        return self._frame(METRICS)

    def samples(self) -> DataFrame:
        """A row for each sample, in its metric's unit."""
        from farm.reports.records import SAMPLES

        return self._frame(SAMPLES)

    def stages(self) -> DataFrame:
        """A row for each pair of neighbouring stages of the correctness chain."""
        from farm.reports.records import STAGES

        return self._frame(STAGES)

    def _frame(self, table: Table) -> DataFrame:
        from farm.api.frames import frame

        return frame(table, self.report)


def run(
    config: str | PathLike[str],
    *,
    inventory: str | PathLike[str] | None = None,
    select: str = "",
    overrides: Mapping[str, Any] | None = None,
    cluster: str = "local",
    token: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "runs",
    baseline: str | None = None,
    quick: bool = False,
    on_event: Callable[[ViewEvent], None] | None = None,
) -> Run:
    """Run a config to its end, as `farm run` does, and return what it found.

    It works in a notebook too, whose event loop is left alone.

    Args:
        config: The YAML file, or a bundle, whose config is run again.
        inventory: Inventory (YAML); None: every adb device attached, and this machine.
        select: Only devices that match, such as `transport=adb, ram>=6GiB`.
        overrides: Config keys and their values, such as `{"workload.decode": [32]}`.
        cluster: `local`: a Ray runtime of our own; `none`: in this process; else an address, for
            which the program has to be started as the error says: it is never started again.
        token: File with that cluster's token.
        out: Folder that run folders are made in.
        baseline: Name or report.json to compare with.
        quick: Least work that shows every step; numbers are rough.
        on_event: Called with what happens, from another thread in a notebook.

    Raises:
        FarmError: It could not begin. What goes wrong later is an outcome of a cell, never an
            exception; an interruption too ends with what was measured by then.
    """
    from farm.api.threads import in_thread
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions
    from farm.run.run import run_config

    home = farm_home()
    if cluster not in ("local", "none"):
        from farm.cluster.start import enter

        enter(cluster, None if token is None else Path(token), home, restarts=False)
    options = RunOptions(
        config=Path(config),
        inventory=None if inventory is None else Path(inventory),
        select=select,
        overrides=tuple(f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()),
        cluster=cluster,
        out=Path(out),
        baseline=baseline,
        quick=quick,
    )
    emit = on_event or (lambda _event: None)
    if not _has_loop():
        finished = run_config(options, home, emit)
    else:
        finished = in_thread(lambda tell: run_config(options, home, tell), emit)
    return Run(finished.report, finished.folder)


def load(run: str | PathLike[str] = "latest", *, out: str | PathLike[str] = "runs") -> Run:
    """Load a run: of one that was killed, what its journal knows.

    Args:
        run: Run id, `latest`, a run folder, or a bundle.
        out: Folder that holds the run folders.

    Raises:
        FarmError: There is none, or it is damaged.
    """
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.rebuild import report_of

    folder = run_folder.find(str(run), Path(out))
    return Run(report_of(folder, farm_home()), folder)


def _has_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
