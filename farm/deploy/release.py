"""From a run to what is deployed: the very files that were validated, and what they must give."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm import codec, paths
from farm.clock import utc_now
from farm.core.artifact import Bundle, CanaryProgram, ExportResult
from farm.core.deployment import (
    SCHEMA,
    TOKENIZER,
    Answer,
    ChatFormat,
    Manifest,
    Provenance,
    Rate,
)
from farm.core.errors import ConfigError
from farm.core.flow.chain import bundle_files
from farm.core.result import CellResult, Report
from farm.core.rules.deployable import Ran
from farm.core.rules.launches import measures, ram_need_bytes
from farm.core.runner import DeployFile, RunnerBuild, RunnerSpec
from farm.core.runtime import Measure
from farm.core.tasks import CanaryTask
from farm.deploy.made import Made, made_of
from farm.host.facts import farm_report
from farm.planning.reach import Reach
from farm.run import run_folder
from farm.run.journal import Journal
from farm.run.opening import saved_of
from farm.run.rebuild import report_of
from farm.run.saved_plan import SavedPlan
from farm.site.device.lease import user_and_host
from farm.store import run_bundle
from farm.store.actions import ActionCache, runner_key
from farm.store.objects import ContentStore
from farm.tasks.canary import make_canary
from models.chat import RUN_DAY
from models.chat_format import chat_format, prompt_ids


@dataclass(frozen=True, slots=True)
class Release:
    """One version, with what its checks need."""

    manifest: Manifest
    runner: RunnerSpec


@dataclass(frozen=True, slots=True)
class Validated:
    """A run that is to be deployed, opened."""

    folder: Path
    report: Report
    report_sha256: str
    saved: SavedPlan

    @property
    def ran(self) -> Ran:
        """What choosing needs besides the results."""
        plan, known = self.saved.plan, self.saved.runners
        cells = (*plan.cells, *(skip.cell for skip in plan.skips))
        kinds = {cell.cell_id: known[cell.runner].kind for cell in cells}
        facts = {d.name: d.facts for d in self.report.devices if d.facts is not None}
        return Ran(kinds, facts)

    def runner_of(self, cell_id: str) -> RunnerSpec:
        """The runner of a cell."""
        return next(
            self.saved.runners[c.runner] for c in self.saved.plan.cells if c.cell_id == cell_id
        )


def open_run(folder: Path, home: Path) -> Validated:
    """Open a run.

    Raises:
        ConfigError: It has no report or no journal, a process works on it still, or the report
            isn't what the journal has.
        StoreError: Its plan is damaged.
    """
    report = report_of(folder, home)
    if not (folder / run_folder.JOURNAL).exists():
        raise ConfigError(f"{folder}: has no journal.db, so nobody can tell what was validated")
    journal = Journal(folder / run_folder.JOURNAL, read_only=True)
    try:
        saved = saved_of(journal, folder)
        if not run_bundle.came_of(folder):  # whose digest is checked, and which has no cells
            refuse_edited(report, journal.cells(), folder)
    finally:
        journal.close()
    written = folder / run_folder.REPORT
    content = written.read_bytes() if written.exists() else codec.to_json(report).encode()
    return Validated(folder, report, hashlib.sha256(content).hexdigest(), saved)


def refuse_edited(report: Report, recorded: Mapping[str, CellResult], folder: Path) -> None:
    """Refuse a report that calls passed what the run's journal doesn't.

    What came of all cells together (a regression, a waiver) only the report has.

    Args:
        report: The report.
        recorded: Results by cell id, as the run recorded them one by one.
        folder: Of the run.

    Raises:
        ConfigError: Names the first cell.
    """
    for result in report.results:
        kept = recorded.get(result.cell_id) if result.outcome == "passed" else result
        if kept is None or _decisive(kept) != _decisive(result):
            raise ConfigError(
                f"{folder / run_folder.REPORT}: {result.cell_id} passed, which the run's journal"
                " doesn't say of these files and answers: it was edited; run the config again"
            )


def _decisive(result: CellResult) -> tuple[object, ...]:
    """What decides whether and how a cell is shipped."""
    correctness = result.correctness
    stages = () if correctness is None else correctness.stages
    return (
        (result.outcome, result.artifact.sha256, result.runner.sha256, result.threads),
        (result.device.name, result.device.identity),
        None if correctness is None else correctness.generated,
        [(stage.from_, stage.to, stage.path, stage.bit_equal) for stage in stages],
    )


def make_releases(
    run: Validated,
    choices: Sequence[tuple[str, str]],
    home: Path,
    name: str,
    builds: Callable[[str], RunnerBuild | None],
) -> dict[str, Release]:
    """Make the release of each chosen cell.

    Args:
        run: The run.
        choices: Cell ids, each with the reason why it isn't validated for a device; empty: it is.
        home: FARM_HOME, whose store has the files.
        name: Name of the deployment; empty: the model's.
        builds: Finds a runner by its hash, and has its files in the store.

    Returns:
        By cell id.

    Raises:
        StoreError: A file of a cell isn't in this host's store any more.
        ConfigError: The run can't say what its device answered.
    """
    results = {result.cell_id: result for result in run.report.results}
    made = {}
    for cell_id, unverified in dict(choices).items():
        made[cell_id] = _release(run, results[cell_id], unverified, home, name, builds)
    return made


def find_build(home: Path, reach: Reach, sha256: str) -> RunnerBuild | None:
    """Find a runner that a run built, here or at the site whose device it was built for."""
    found = kept_build(home, sha256)
    for site in () if found is not None else reach.sites:
        found = reach.at(site, kept_build, sha256)
        if found is not None:
            reach.collect([file.object for file in found.files], site)
            ActionCache(ContentStore(paths.store_root(home))).record(runner_key(sha256), found)
            break
    return found


def kept_build(home: Path, sha256: str) -> RunnerBuild | None:
    """Look for a runner in the store of a host; travels to it."""
    return ActionCache(ContentStore(paths.store_root(home))).lookup(runner_key(sha256), RunnerBuild)


def canary(home: Path) -> CanaryProgram:
    """Provide the program that checks the kernels of every device.

    Raises:
        FarmError: It can't be made.
    """
    stop = threading.Event()
    return make_canary(CanaryTask("canary"), home, lambda _event: None, stop)


def _release(
    run: Validated,
    result: CellResult,
    unverified: str,
    home: Path,
    name: str,
    builds: Callable[[str], RunnerBuild | None],
) -> Release:
    store = ContentStore(paths.store_root(home))
    made = made_of(run.folder, run.saved, result, home, builds)
    export, build = made.export, made.build
    spec = run.runner_of(result.cell_id)
    longest = run.saved.spec.correctness.max_new_tokens
    rate, no_rate = _rate(result, measures(run.saved.spec.workload))
    manifest = make_manifest(
        export.bundle,
        build,
        name,
        threads=result.threads,
        chat=_chat(made, run, store),
        answer=_answer(result, made, longest, unverified),
        rate=rate,
        no_rate=no_rate,
        provenance=_provenance(run, result, export, unverified),
    )
    return Release(manifest, spec)


def make_manifest(
    bundle: Bundle,
    build: RunnerBuild,
    name: str,
    *,
    threads: int,
    chat: ChatFormat,
    provenance: Provenance,
    answer: Answer | None = None,
    rate: Rate | None = None,
    no_rate: str = "",
) -> Manifest:
    """Put a version together from an artifact and the runner that was built for its devices."""
    artifact = bundle_files(bundle)
    words = () if bundle.tokenizer is None else (DeployFile(bundle.tokenizer, TOKENIZER),)
    manifest = Manifest(
        schema=SCHEMA,
        name=name or plain_name(bundle.model),
        version="",
        model=bundle.model,
        recipe=bundle.recipe,
        toolchain=bundle.toolchain,
        backend=bundle.backend,
        threads=threads,
        max_context=bundle.metadata.max_context,
        files=(*artifact, *words, *build.files),
        program=artifact[0].path,
        data=tuple(file.path for file in artifact[1:]),
        tokenizer=words[0].path if words else None,
        runner=build,
        chat=chat,
        answer=answer,
        rate=rate,
        no_rate=no_rate,
        ram_need_bytes=ram_need_bytes(bundle),
        provenance=provenance,
    )
    return replace(manifest, version=version_of(manifest))


def version_of(manifest: Manifest) -> str:
    """Name a version by what it is, not by when or by whom: the same again is the same."""
    origin = manifest.provenance
    parts = (
        [(file.path, file.object.sha256, file.executable) for file in manifest.files],
        (manifest.runner.argv, manifest.runner.env, manifest.threads),
        codec.to_data(manifest.chat),
        None if manifest.answer is None else codec.to_data(manifest.answer),
        (origin.run_id, origin.cell_id, origin.unverified),
    )
    return codec.digest(*parts)[:12]


def _answer(result: CellResult, made: Made, max_new_tokens: int, unverified: str) -> Answer | None:
    correctness = result.correctness
    ids = None if correctness is None else correctness.generated
    if correctness is None or ids is None:
        if unverified:
            return None
        raise ConfigError(
            f"{result.cell_id}: the run has no answer of its device to hold others against (made"
            " by an older farm?): run the config again, then deploy that run"
        )
    last = [stage for stage in correctness.stages if stage.to == "device_pte"]
    host = [stage for stage in last if stage.from_ == "host_pte"]
    return Answer(
        prompt=made.prompt,
        ids=ids,
        max_new_tokens=max_new_tokens,
        stop_ids=made.stop_ids,
        bit_equal=bool(host) and all(stage.bit_equal for stage in host),
    )


def _rate(result: CellResult, asked: Sequence[Measure]) -> tuple[Rate | None, str]:
    """The speed of decode that the run is sure of, and why there is none."""
    by_name = {measure.name: measure for measure in asked}
    why = "the run timed no decode"
    for row in result.performance:
        measure = by_name.get(row.metric)
        if row.regime != "warm" or measure is None or not measure.decode:
            continue
        if row.trust == "invalid" or row.median is None:
            why = f"{row.metric} of the run isn't to be trusted"
        elif row.ci95 is None:
            why = f"{row.metric} of the run has no interval: too few launches"
        else:
            once = replace(measure, repetitions=min(measure.repetitions, 3))
            return Rate(once, row.median, row.ci95[0]), ""
    return None, why


def _chat(made: Made, run: Validated, store: ContentStore) -> ChatFormat:
    export = made.export
    if export.bundle.tokenizer is None:
        meta = export.bundle.metadata
        return ChatFormat(
            None, meta.bos_id, False, "", "", made.stop_ids, "the artifact has no tokenizer"
        )
    text = store.path(export.bundle.tokenizer).read_text("utf-8")
    form = chat_format(export.bundle, text, made.stop_ids)
    prompt = run.saved.spec.correctness.prompt
    asked = prompt_ids(form, text, [{"role": "user", "content": prompt}], RUN_DAY)
    if tuple(asked) != made.prompt:
        return replace(form, unproven="it doesn't make the validated run's own prompt")
    return form


def _provenance(
    run: Validated, result: CellResult, export: ExportResult, unverified: str
) -> Provenance:
    farm = farm_report()
    gates = () if result.correctness is None else result.correctness.gates
    timed = (gate for row in result.performance for gate in row.gates)
    held = [gate.text or gate.metric for gate in (*gates, *timed) if gate.passed]
    return Provenance(
        run_id=run.report.run_id,
        cell_id=result.cell_id,
        report_sha256=run.report_sha256,
        config_sha256=run.report.config_sha256,
        outcome=result.outcome,
        gates=tuple(dict.fromkeys(held)),
        versions=export.versions,
        farm_version=farm.version,
        farm_tree_sha256=farm.tree_sha256,
        deployed_by=user_and_host(),
        deployed_at=utc_now(),
        unverified=unverified,
        run_exit_code=run.report.exit_code,
    )


def plain_name(name: str) -> str:
    """A name that a folder may have."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return kept.strip(".-")[:60] or "model"
