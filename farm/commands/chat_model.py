"""What `farm chat` talks to: a deployment of the device, or a recipe that is brought there."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import runners
from farm import transports
from farm.core.artifact import ModelSource, StageEvent, Toolchain
from farm.core.deployment import ChatFormat, Installed, Manifest
from farm.core.errors import ConfigError, DeviceError
from farm.core.flow.chain import bundle_files, export_task
from farm.core.lease import HOLD_RUN, LeaseOwner
from farm.core.plan import ArtifactId
from farm.core.rules.launches import ram_need_bytes
from farm.core.rules.service_unit import socket_path
from farm.core.runner import OWN, PLAIN, DeployFile, RunnerBuild
from farm.core.runtime import DeviceJob
from farm.core.spec import Matrix, Resources, RunSpec
from farm.deploy.fleet import read_manifest
from farm.planning.catalog import resolve_names
from farm.site.context import SiteContext
from farm.site.device import deploy, deployments
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import user_and_host
from farm.site.device.sending import provide_runner
from farm.store.objects import ContentStore
from farm.tasks import worker_process
from models.chat_format import chat_format

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the command line asks for."""

    device: str
    #: A deployment's name or a model's; empty: the only deployment of the device.
    model: str = ""
    #: Export this recipe of the model, deployed or not.
    recipe: str = ""
    inventory: Path | None = None
    system: str = ""
    max_new_tokens: int = 256
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a conversation is held with."""

    #: For people: `deployment smollm2 1f2e3d4c5b6a`.
    what: str
    files: tuple[DeployFile, ...]
    build: RunnerBuild
    program: str
    data: tuple[str, ...]
    threads: int
    max_context: int
    chat: ChatFormat
    tokenizer_json: str
    #: Socket of a service that has it loaded; None: there is none.
    socket: str | None = None


def find_model(
    request: ChatRequest, connection: Connection, home: Path, store: ContentStore, say: Say
) -> Spoken:
    """Find what a person wants to talk to, and bring it to the device where it isn't deployed.

    Raises:
        ConfigError: The device has no such deployment, or the names are wrong.
        FarmError: The model can't be exported, or not brought there.
    """
    helper = connection.helper
    if request.recipe:
        if not request.model:
            raise ConfigError("--recipe needs a MODEL: `farm models` shows them")
        return _of_recipe(request, connection, home, store, say)
    here = [one for one in deployments.list_installed(helper) if one.current]
    found = [one for one in here if request.model in ("", one.name)]
    if len(found) == 1:
        return _deployed(request, found[0], connection)
    names = ", ".join(one.name for one in here) or "none"
    if not request.model and found:
        raise ConfigError(f"{request.device} has several deployments: name one of {names}")
    raise ConfigError(
        f"{request.device} has no deployment {request.model or 'in use'} (it has {names}): deploy"
        " one with `farm deploy`, or give a MODEL with --recipe"
    )


def _deployed(request: ChatRequest, one: Installed, connection: Connection) -> Spoken:
    helper = connection.helper
    manifest = read_manifest(helper, one.name, one.version)
    _refuse_drift(one, manifest, helper)
    if manifest.tokenizer is None:
        raise ConfigError(f"{one.name} {one.version} has no tokenizer: nobody can talk to it")
    folder = deployments.folder_of(helper, one.name, one.version)
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch, "tokenizer")
        size = next(f.object.size_bytes for f in manifest.files if f.path == manifest.tokenizer)
        helper.transport.pull(f"{folder}/{manifest.tokenizer}", local, max_bytes=size)
        text = local.read_text("utf-8")
    socket = socket_path(helper.root, one.name)
    return Spoken(
        what=f"deployment {one.name} {one.version}",
        files=manifest.files,
        build=manifest.runner,
        program=manifest.program,
        data=manifest.data,
        threads=request.threads or manifest.threads,
        max_context=manifest.max_context,
        chat=manifest.chat,
        tokenizer_json=text,
        socket=socket if helper.transport.stat(socket) is not None else None,
    )


def _refuse_drift(one: Installed, manifest: Manifest, helper: DeviceHelper) -> None:
    """Refuse a version whose files aren't its own; those that a stamp tells, or a restart.

    Raises:
        DeviceError: Names a file.
    """
    objects = {file.object.sha256: file for file in manifest.files}
    found = helper.have(list(objects), size_bytes=manifest.size_bytes)
    bad = [f"{file.path} is {found[sha].state}" for sha, file in objects.items()
           if found[sha].state != "ok"]  # fmt: skip
    if not bad and not one.holds(manifest.files):
        bad = ["its files are others than its manifest names"]
    if bad:
        raise DeviceError(
            f"{helper.device}: {one.name} {one.version} isn't what was deployed ({bad[0]}): deploy"
            " it again, or `farm deployments rollback`",
            device=helper.device,
        )


def _of_recipe(
    request: ChatRequest, connection: Connection, home: Path, store: ContentStore, say: Say
) -> Spoken:
    spec = RunSpec(
        name="chat",
        models=(ModelSource(request.model),),
        toolchains=(Toolchain("default"),),
        matrix=Matrix(recipe=(request.recipe,)),
        source="chat",
    )
    catalog = resolve_names(spec)
    task = export_task(ArtifactId(request.model, request.recipe, "default"), catalog, Resources())

    def on_stage(event: StageEvent) -> None:
        say(f"{event.name} {event.detail}".strip())

    export = worker_process.export(task, home, on_stage, threading.Event())
    bundle = export.bundle
    if bundle.tokenizer is None:
        raise ConfigError(f"{request.model} has no tokenizer: nobody can talk to it")
    context = SiteContext(home, store, transports.open, runners.find)
    job = DeviceJob(
        job_id="chat",
        attempt=1,
        epoch=1,
        run_id=HOLD_RUN,
        cell_id="chat",
        device=request.device,
        runner=OWN,
        artifact=bundle_files(bundle),
        launches=(),
        ram_need_bytes=ram_need_bytes(bundle),
        sdk=export.sdk(task.request.toolchain),
    )
    facts = connection.snapshot().facts
    build = provide_runner(runners.find(OWN), facts, job, context, say, PLAIN)
    files = (*job.artifact, *build.files)
    sent = deploy.deploy(
        connection.helper,
        files,
        store,
        holder(),
        free_bytes=facts.storage_free_bytes,
        progress=lambda _done, _total: None,
    )
    if sent.pushed_bytes:
        say(f"copied {sent.pushed_bytes} bytes in {sent.seconds:.1f} s")
    text = store.path(bundle.tokenizer).read_text("utf-8")
    return Spoken(
        what=f"{request.model}/{request.recipe}",
        files=files,
        build=build,
        program=files[0].path,
        data=tuple(file.path for file in job.artifact[1:]),
        threads=request.threads,
        max_context=bundle.metadata.max_context,
        chat=chat_format(bundle, text, bundle.metadata.stop_ids),
        tokenizer_json=text,
    )


def holder() -> LeaseOwner:
    """The hold of this person, as verbs that write ask for it."""
    return LeaseOwner(user_and_host(), HOLD_RUN, 1)
