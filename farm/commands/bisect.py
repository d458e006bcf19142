"""`farm bisect`: which revision brought a loss; each step is a run, the journal is a file.

Every revision is measured beside the good one, in turns and in one lease, so that no number of two
sittings is compared. `farm.core.rules.bisection` decides what is measured next and when it is
enough. A search that ends early goes on where it stood.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from farm import codec
from farm.commands import revisions
from farm.commands.interpreters import interpreter
from farm.commands.revisions import Axis, Checkout
from farm.commands.sitting import EXACT, at_fault, observed
from farm.config.gates import measured
from farm.config.load import load_run
from farm.core.errors import ConfigError, ExportError, FarmError, StoreError
from farm.core.names import nearest
from farm.core.plan import ArtifactId
from farm.core.result import CellResult
from farm.core.rules.bisection import Look, Observation, Search, Verdict, is_bad, next_step
from farm.core.rules.gates import is_gated
from farm.core.rules.interval import LEAST_PAIRS, pair_statistics
from farm.core.rules.verdict import EXIT_INTERRUPTED
from farm.core.view import ViewEvent
from farm.planning.planning import RunOptions, load_checked
from farm.reports.json import load_report, render
from farm.run import run_folder
from farm.run.run import Finished, run_config
from farm.run.run_lock import RunLock

JOURNAL = "bisect.json"
GOOD = "good.json"
#: Sittings without a usable number after which a revision counts as one that can't be told.
_TRIES = 3
#: The search decides, and when it is sure: a sitting ends with the least pairs.
_NO_GATE = "gates={regress: 99.9999%}"

#: Runs a config to its end; `run_config` with the rest filled in.
Run = Callable[[RunOptions], Finished]


@dataclass(frozen=True, slots=True)
class Question:
    """What a search is about."""

    config: str
    axis: Axis
    #: The good one first.
    revisions: tuple[str, ...]
    #: A speed of the report such as tg64 or load, `peak_rss_bytes`, `perplexity`, `artifact_bytes`.
    metric: str
    #: Loss that is looked for, as a share.
    loss: float
    inventory: str = ""
    select: str = ""
    cluster: str = "none"
    overrides: tuple[str, ...] = ()
    repo: str = ""
    build: str = ""


@dataclass(frozen=True, slots=True)
class Journal:
    """A search so far."""

    question: Question
    seen: tuple[Observation, ...] = ()
    #: Revisions that can't be told, and why, by place.
    broken: dict[int, str] = field(default_factory=dict)
    #: Folder of each run, in order, and the place of its revision.
    runs: tuple[tuple[int, str], ...] = ()
    #: Pairs of launches, as log ratios, of sittings whose budget held too few, by place.
    loose: dict[int, tuple[float, ...]] = field(default_factory=dict)
    #: Sittings without a usable number, by place.
    wasted: dict[int, int] = field(default_factory=dict)

    @property
    def search(self) -> Search:
        """As the rules take it."""
        wanted = self.question
        return Search(len(wanted.revisions), wanted.loss, self.seen, self.broken)


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search."""

    folder: Path
    journal: Journal
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        """0: a revision was found, or a range of those that can't be told; 3: no loss was."""
        return 3 if self.verdict.maybe_none else 0

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        wanted, bad = self.journal.question, self.verdict.first_bad
        what = f"{wanted.loss:.3g} of {wanted.metric}"
        if not bad:
            return f"no revision lost {what}: the last one is as good as the first"
        names = [wanted.revisions[one] for one in bad]
        if self.verdict.maybe_none:
            return f"can't tell: {', '.join(names)} could not be measured, or none lost {what}"
        if len(names) > 1:
            return f"the loss came in with one of {', '.join(names)}: those between can't be told"
        return f"the loss came in with {names[0]} ({wanted.revisions[bad[0] - 1]} is good)"


def begin(question: Question, out: Path, home: Path) -> Path:
    """Make the folder of a new search; what can't work is refused before anything runs.

    Args:
        question: What to search for.
        out: Where the folder is made.
        home: FARM_HOME.

    Raises:
        ConfigError: Metric, loss, config or a revision is wrong.
        StoreError: The folder can't be made or written.
    """
    if (question.axis == "git") != bool(question.build):
        raise ConfigError("--build COMMAND and --repo CHECKOUT go with `--over git`, and only so")
    spec, config = load_run(Path(question.config), question.overrides)
    known = [*filter(is_gated, measured(spec.workload)), "peak_rss_bytes", *EXACT]
    if question.metric not in known:
        meant = nearest(question.metric, known)
        hint = "" if meant is None else f", did you mean {meant}?"
        raise ConfigError(
            f"--metric {question.metric!r}: {question.config} gives no such number{hint}; it gives"
            f" {', '.join(known)}"
        )
    if question.axis != "git":
        is_runtime = question.axis == "runtime"
        for revision in (sys.executable,) if is_runtime else question.revisions:
            words = revisions.overrides(question.axis, revision, config)
            load_checked(_options(question, words, out), home)
    run_id = run_folder.new_run_id("bisect", datetime.datetime.now(datetime.UTC))
    folder = run_folder.create(out.resolve(), run_id)
    _write(folder, Journal(question))
    return folder


def open_search(folder: Path) -> Journal:
    """Read the journal of a search.

    Raises:
        ConfigError: The folder has none, or it is damaged.
    """
    path = folder / JOURNAL
    try:
        return codec.from_json(Journal, path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder}: holds no search ({path.name}: {error.strerror})") from error
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: is damaged: {error.errors()[0]['msg']}") from error


#: Tells a line of progress.
Say = Callable[[str], None]


def search(folder: Path, home: Path, emit: Callable[[ViewEvent], None], say: Say) -> Found:
    """Go on with a search until it is decided.

    Raises:
        FarmError: A run could not begin or a device went away; the search can be gone on with.
        StoreError: Another process works on it.
    """
    wanted = open_search(folder).question

    def python_of(version: str) -> str:
        return interpreter(_options(wanted, (), folder / "runs"), version, home, emit)

    lock = RunLock(folder)
    try:
        return go_on(folder, lambda options: run_config(options, home, emit), say, python_of)
    finally:
        lock.release()


def go_on(folder: Path, run: Run, say: Say, python_of: Callable[[str], str] = str) -> Found:
    """Take steps until the search is decided; see `search`.

    `python_of` gives the interpreter of a release, where runtimes are searched.
    """
    run_of = partial(_measured, folder, run=run, python_of=python_of)
    journal = open_search(folder)
    good = folder / GOOD
    if not good.exists():
        finished = run_of(journal, 0, None)
        (result,) = finished.report.results
        if result.outcome in ("errored", "skipped"):
            raise FarmError(f"the good revision can't be measured: {result.reason}")
        run_folder.write_text(good, render(finished.report))
        journal = _kept(folder, journal, 0, finished)
    while isinstance(step := next_step(journal.search), Look):
        place = step.revision
        say(f"measuring {journal.question.revisions[place]} beside the good revision")
        try:
            finished = run_of(journal, place, good)
            seen = observed(place, finished.report, load_report(good), journal.question.metric)
        except ExportError as error:
            journal = _gave_up(folder, journal, place, error.message)
            continue
        journal = _kept(folder, journal, place, finished)
        if isinstance(seen, CellResult):
            journal = _unusable(folder, journal, place, seen)
        else:
            journal = _taken_in(journal, place, seen, say)
        _write(folder, journal)
    return Found(folder, journal, step)


def _taken_in(
    journal: Journal, place: int, seen: Observation | tuple[float, ...], say: Say
) -> Journal:
    """Add what a sitting gave; pairs that are too few wait for those of the next."""
    one: Observation | None
    if isinstance(seen, tuple):
        one, journal = _joined(journal, place, seen)
    else:
        one = seen
    if one is None:
        return journal
    journal = replace(journal, seen=(*journal.seen, one))
    word = {True: "bad", False: "good", None: "not sure yet"}[is_bad(journal.search, place)]
    say(f"{journal.question.revisions[place]}: {math.exp(one.shift):.4g}x, {word}")
    return journal


def _joined(
    journal: Journal, place: int, logs: tuple[float, ...]
) -> tuple[Observation | None, Journal]:
    """Add the pairs of a sitting to those that were too few so far; None while they still are."""
    every = (*journal.loose.get(place, ()), *logs)
    if len(every) < LEAST_PAIRS:
        return None, replace(journal, loose={**journal.loose, place: every})
    rest = {key: value for key, value in journal.loose.items() if key != place}
    found = pair_statistics(every)
    # Peak memory of one program may be the same to the byte in every launch.
    one = Observation(place, found.mean, found.error, found.df if found.error else 0)
    return one, replace(journal, loose=rest)


def _unusable(folder: Path, journal: Journal, place: int, seen: CellResult) -> Journal:
    """Take in a sitting without a usable number: try again, give the revision up, or stop.

    Raises:
        FarmError: The device or its host failed, not the revision.
    """
    fault = at_fault(seen)
    if not fault and seen.outcome in ("errored", "skipped"):
        raise FarmError(f"{seen.reason}; go on with `farm bisect --resume {folder}`")
    wasted = journal.wasted.get(place, 0) + 1
    journal = replace(journal, wasted={**journal.wasted, place: wasted})
    if not fault and wasted < _TRIES:
        return journal
    why = seen.reason or f"{journal.question.metric} can't be trusted"
    return _gave_up(folder, journal, place, why)


def _gave_up(folder: Path, journal: Journal, place: int, why: str) -> Journal:
    journal = replace(journal, broken={**journal.broken, place: why})
    _write(folder, journal)
    return journal


def _kept(folder: Path, journal: Journal, place: int, finished: Finished) -> Journal:
    journal = replace(journal, runs=(*journal.runs, (place, str(finished.folder))))
    _write(folder, journal)
    return journal


def _measured(
    folder: Path,
    journal: Journal,
    place: int,
    good: Path | None,
    *,
    run: Run,
    python_of: Callable[[str], str],
) -> Finished:
    """Run one revision, beside the good one where that is known.

    Raises:
        ExportError: It can't be built.
        ConfigError: The config has another number of cells than one.
    """
    wanted = journal.question
    revision = wanted.revisions[place]
    if wanted.axis == "git":
        revision = revisions.build(Checkout(Path(wanted.repo), wanted.build), revision, folder)
    elif wanted.axis == "runtime":
        revision = python_of(revision)
    _, config = load_run(Path(wanted.config), wanted.overrides)
    options = _options(wanted, revisions.overrides(wanted.axis, revision, config), folder / "runs")
    if good is not None:
        base = str(_renamed(folder, good, options))
        options = replace(options, baseline=base, one_look=True)
    finished = run(options)
    if finished.report.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt  # what was measured by then is in its run's folder, and no sitting
    if len(finished.report.results) != 1:
        cells = ", ".join(result.cell_id for result in finished.report.results)
        raise ConfigError(
            f"{wanted.config}: a search is about one cell, this plans {cells}; narrow it with"
            " --select and --set"
        )
    return finished


def _options(wanted: Question, words: tuple[str, ...], out: Path) -> RunOptions:
    return RunOptions(
        config=Path(wanted.config),
        inventory=Path(wanted.inventory) if wanted.inventory else None,
        select=wanted.select,
        overrides=(*wanted.overrides, *words, _NO_GATE),
        cluster=wanted.cluster,
        out=out,
    )


def _renamed(folder: Path, good: Path, options: RunOptions) -> Path:
    """Write the good revision's report with its cell named as that of another revision."""
    assert options.config is not None, "a search has a config"
    spec, _ = load_run(options.config, options.overrides)
    report = load_report(good)
    (result,) = report.results
    old = ArtifactId(result.model, result.recipe, result.toolchain)
    new = ArtifactId(spec.models[0].name, spec.matrix.recipe[0], spec.matrix.toolchain[0])
    cell_id = f"{new}{result.cell_id.removeprefix(str(old))}"
    path = folder / "baseline.json"
    renamed = replace(result, cell_id=cell_id)
    run_folder.write_text(path, render(replace(report, results=(renamed,))))
    return path


def lines(found: Found) -> list[tuple[str, str, str, str]]:
    """Return name, sittings, middle ratio and what it is, of each revision."""
    journal = found.journal
    rows = [(journal.question.revisions[0], "", "", "good, as said")]
    for place, name in enumerate(journal.question.revisions[1:], 1):
        seen = [one for one in journal.seen if one.revision == place]
        ratio = math.exp(sum(one.shift for one in seen) / len(seen)) if seen else None
        state = {True: "bad", False: "good", None: "can't tell" if seen else "not needed"}
        word = journal.broken.get(place) or state[is_bad(journal.search, place)]
        rows.append((name, str(len(seen)), "" if ratio is None else f"{ratio:.4g}x", word))
    return rows


def to_data(found: Found) -> dict[str, Any]:
    """Return a finished search as plain data."""
    wanted = found.journal.question
    return {
        "folder": str(found.folder),
        "first_bad": [wanted.revisions[one] for one in found.verdict.first_bad],
        "maybe_none": found.verdict.maybe_none,
        "belief": found.verdict.belief,
        "sentence": found.sentence,
        "builds": 1 + len(found.journal.search.measured) + len(found.journal.broken),
        "journal": codec.to_data(found.journal),
    }


def _write(folder: Path, journal: Journal) -> None:
    try:
        run_folder.write_json(folder / JOURNAL, codec.to_data(journal))
    except StoreError as error:
        raise StoreError(f"{error.message}; the last step is not recorded") from error
