"""A config that nobody ran, deployed all the same: exported, built, and marked for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import runners
from farm import paths, transports
from farm.clock import utc_now
from farm.core.artifact import ExportResult, StageEvent
from farm.core.deployment import ChatFormat, Manifest, Provenance
from farm.core.device import Device
from farm.core.errors import ConfigError
from farm.core.flow.chain import bundle_files, export_task
from farm.core.plan import ArtifactId
from farm.core.runner import OWN_KINDS, PLAIN, RunnerBuild, RunnerSpec
from farm.core.runtime import DeviceJob
from farm.deploy.release import Release, make_manifest
from farm.host.facts import farm_report
from farm.planning.planning import Loaded, RunOptions, load_checked
from farm.site.context import SiteContext
from farm.site.device.connection import Connection
from farm.site.device.lease import user_and_host
from farm.site.device.sending import provide_runner
from farm.store.objects import ContentStore
from farm.tasks import worker_process
from models.chat_format import chat_format

WHY = "no run: a config was deployed as it is"


class Unrun:
    """A config whose one artifact is exported and deployed without a run.

    Args:
        config: The file.
        home: FARM_HOME.
        name: Name of the deployment; empty: the model's.

    Raises:
        ConfigError: It is wrong, or has several artifacts, runners or threads.
        FarmError: The export failed.
    """

    def __init__(self, config: Path, home: Path, name: str) -> None:
        self._home, self._name = home, name
        self._store = ContentStore(paths.store_root(home))
        loaded = load_checked(RunOptions(config), home)
        self._spec = loaded.spec
        self._target, self._runner = _only(loaded)
        task = export_task(self._target, loaded.catalog, loaded.spec.export)
        self._export = worker_process.export(task, home, _quiet, threading.Event())
        self._toolchain = task.request.toolchain

    def release(self, device: Device) -> Release:
        """Make the release for one device; its runner is built for it.

        Raises:
            DeviceUnfit: No runner can be had for it.
            TransportError: It can't be reached.
        """
        context = SiteContext(self._home, self._store, transports.open, runners.find)
        with contextlib.closing(Connection(device.entry, self._home)) as connection:
            facts = connection.snapshot().facts
        job = DeviceJob(
            job_id="deploy",
            attempt=1,
            epoch=1,
            run_id="deploy",
            cell_id="deploy",
            device=device.name,
            runner=self._runner,
            artifact=bundle_files(self._export.bundle),
            launches=(),
            sdk=self._export.sdk(self._toolchain),
        )
        runner = runners.find(self._runner)
        build = provide_runner(runner, facts, job, context, lambda _text: None, PLAIN)
        return Release(self._manifest(build), self._runner)

    def _manifest(self, build: RunnerBuild) -> Manifest:
        export, bundle = self._export, self._export.bundle
        farm = farm_report()
        return make_manifest(
            bundle,
            build,
            self._name,
            threads=self._spec.matrix.threads[0],
            chat=self._chat(export),
            no_rate="nothing was measured",
            provenance=Provenance(
                run_id="",
                cell_id="",
                report_sha256="",
                config_sha256=self._spec.sha256,
                outcome="not run",
                gates=(),
                versions=export.versions,
                farm_version=farm.version,
                farm_tree_sha256=farm.tree_sha256,
                deployed_by=user_and_host(),
                deployed_at=utc_now(),
                unverified=WHY,
            ),
        )

    def _chat(self, export: ExportResult) -> ChatFormat:
        bundle, stop_ids = export.bundle, export.bundle.metadata.stop_ids
        if bundle.tokenizer is None:
            return ChatFormat(
                None, bundle.metadata.bos_id, False, "", "", stop_ids, "it has no tokenizer"
            )
        text = self._store.path(bundle.tokenizer).read_text("utf-8")
        return replace(chat_format(bundle, text, stop_ids), unproven="no run checked it")


def is_config(run: str) -> bool:
    """Whether what shall be deployed is a config rather than a run."""
    return run.endswith((".yaml", ".yml"))


def refuse_unasked(run: str) -> None:
    """Refuse a config where nobody said that it may be unverified.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"{run} is a config, and nothing of it was validated: `farm run {run}`, then"
        " `farm deploy latest`. --unverified deploys it all the same, and that is recorded"
    )


def _only(loaded: Loaded) -> tuple[ArtifactId, RunnerSpec]:
    spec = loaded.spec
    several: dict[str, Sequence[object]] = {
        "models": [model.name for model in spec.models],
        "matrix.recipe": list(spec.matrix.recipe),
        "matrix.toolchain": list(spec.matrix.toolchain),
        "matrix.runner": list(spec.matrix.runner),
        "matrix.threads": list(spec.matrix.threads),
    }
    for key, values in several.items():
        if len(values) != 1:
            raise ConfigError(
                f"{spec.source}: {key}: a deployment without a run needs exactly one, not"
                f" {', '.join(map(str, values))}"
            )
    runner = loaded.catalog.runners[spec.matrix.runner[0]]
    if runner.kind not in OWN_KINDS:
        raise ConfigError(f"{spec.source}: matrix.runner: {runner.name} can't be deployed")
    artifact = ArtifactId(spec.models[0].name, spec.matrix.recipe[0], spec.matrix.toolchain[0])
    return artifact, runner


def _quiet(_event: StageEvent) -> None:
    return None
