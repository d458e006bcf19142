"""The seams: what a transport, a runner, a host-task pool and a site must be able to do.

Each protocol has one contract suite in tests/contract that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from farm.core.artifact import ObjectRef, Sdk, StageEvent
from farm.core.command import Command, Completed, FileStat
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.runner import PLAIN, BuildVariant, RunnerBuild, WorkFiles
from farm.core.runtime import DeviceJob, LaunchRequest, LaunchResult

if TYPE_CHECKING:  # a look at the devices needs none of these, and has to be quick
    from farm.core.events import Attached, Handshake, Polled
    from farm.core.tasks import HostTask, HostTaskResult, PoolHosts

#: Longest time a silent device may take in a probe, seconds.
PROBE_LIMIT_S = 15.0

#: Called with the bytes done so far, at most some times a second.
ByteProgress = Callable[[int], None]
#: Called with a short line for people.
TextProgress = Callable[[str], None]


class Transport(Protocol):
    """A connection to one device. Blocking; used by one session thread at a time.

    `close` may be called from another thread at any moment and makes a blocked call raise
    DeviceLost within a second. Every call has a total deadline. Foreign errors never leave.
    """

    name: str

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """Run a program to its end.

        Args:
            command: What to run. Arguments reach the program unchanged, whatever they hold.
            on_stdout: Called with each piece of standard output as it arrives; the pieces are
                also collected in the result.

        Raises:
            ConnectError: The device can't be reached or refuses the connection.
            DeviceLost: The connection broke, or `close` was called.
            TransportTimeout: `command.timeout_s` passed. The remote process is ended where
                the transport can.
            BadOutput: More than `command.max_output_bytes` of output.
        """

    def push(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o600,
        offset: int = 0,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """Write a file to the device; with `offset`, append the rest from there.

        The parent folder must exist. A broken push leaves what arrived, so that it can be
        resumed at that offset.

        Raises:
            ConnectError, DeviceLost: As in `run`.
            TransportTimeout: No byte went through for `stall_s` seconds.
            StorageFull: The device has no space left.
            TransferError: The device refused the file; the message says why.
        """

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """Read a file from the device into `local` (overwritten).

        Raises:
            ConnectError, DeviceLost, TransportTimeout: As in `push`.
            TransferError: It doesn't exist, can't be read, or is larger than `max_bytes`.
        """

    def stat(self, remote: str) -> FileStat | None:
        """Look at a file; None when there is none.

        Raises:
            ConnectError, DeviceLost, TransportTimeout: As in `run`.
        """

    def default_root(self) -> str:
        """Folder of farm on this device, absolute.

        Raises:
            ConnectError, DeviceLost, TransportTimeout: As in `run`.
        """

    def close(self) -> None:
        """End the connection and every call that waits on it. Never raises; may be repeated."""


#: Makes the transport of a device without connecting.
OpenTransport = Callable[[DeviceEntry], Transport]


class Runner(Protocol):
    """A program that runs an artifact on a device: how it is built, started and read.

    Pure except for `build`, which may compile and is cached.
    """

    name: str
    #: Arguments after `RunnerBuild.argv` of a start that only introduces itself and ends well;
    #: None where there is no such start. A site makes it before anything else.
    greeting: tuple[str, ...] | None

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: TextProgress | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        """Provide the runner for a device, built under `home` unless it is there already.

        Args:
            abi: Android's name of the ABI.
            facts: What probing found.
            home: FARM_HOME of this host.
            sdk: What to build against. Where that has nothing to build with, farm's own takes its
                place and `RunnerBuild.note` says why.
            progress: Called with a short line per step; an exception from it ends the build.
            variant: Which of several builds; a runner that has one ignores it.

        Raises:
            DeviceUnfit: There is no way to run on this device; the message says the next step.
            RunnerError: The build failed or needs a tool that isn't here.
        """

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        """Where the files of a build lie on this host, by sha256.

        The runner knows no content store; whoever deploys puts them there.

        Raises:
            RunnerError: They are no longer there; build again.
        """

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Arguments after `RunnerBuild.argv`, and small files to write to the work folder.

        Raises:
            RunnerError: The request holds something that this runner can't do.
        """

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """Read a finished launch.

        Logits refer to files of the launch's output folder: `ObjectRef.name` is the file
        name and `sha256` what the runner says of it; empty where it doesn't hash them.

        Raises:
            BadOutput: It isn't the runner's protocol, or incomplete.
            RunnerCrashed: It reported an error of its own.
        """

    def progress(self, line: bytes) -> tuple[str, int, int] | None:
        """Phase, done and total of a progress line; None when the line is something else."""

    def rate(self, line: bytes) -> tuple[str, float] | None:
        """Metric and tok/s of a line that reports a timed window; None when it is another."""


class Site(Protocol):
    """One host with devices, as the controller talks to it (directly or through Ray).

    All calls are batched; none is made per job. Errors of single jobs arrive as events.
    """

    name: str

    async def handshake(self) -> Handshake:
        """Say which farm this is; the controller refuses a mismatch."""

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        """Probe the given devices and, with `adb_auto`, every attached adb device.

        One Device for each entry comes back, whatever its state; a device that can't be
        reached has no facts and a reason. Bounded: a silent device takes `limit_s`, all in
        parallel; with `recover`, one that doesn't answer takes as long as its recovery steps.
        """

    async def attach(self, run_id: str, epoch: int) -> Attached:
        """Say what is here of a run; jobs and results of its earlier epochs wait for `submit`.

        Raises:
            PlanError: A later epoch of the run was here.
        """

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        """Queue jobs; each ends in exactly one JobFinished, however often it is submitted.

        The same work of an earlier epoch goes on as this attempt, or gives its result at once.

        Args:
            jobs: What to run.
            boot_id: The agent that they are meant for; empty is any.

        Raises:
            SiteLost: The agent is another one by now.
        """

    async def cancel(self, run_id: str, job_ids: Sequence[str]) -> None:
        """End jobs, running or queued; their JobFinished carries an Interrupted error."""

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str = "") -> Polled:
        """Wait up to `linger_s` for a run's events after `after_seq`; acknowledges those before.

        This call is the controller's heartbeat: without one for the orphan grace (60 s) the
        site ends the jobs of that run. Numbers of another agent than `boot_id` count for nothing.
        """

    async def detach(self, run_id: str) -> None:
        """A run is over: end what is left of it here, and forget what was kept for a resume."""

    async def ensure(
        self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
    ) -> tuple[str, ...]:
        """Make objects present in the site's content store.

        `source` is the FARM_HOME of the controller's host. One transfer an object and host: who
        comes second waits for the first. Returns what somebody should look at.

        Raises:
            StoreError: Nobody has one, or the disk is full.
            SiteLost: The site's host is gone.
        """

    async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        """Bring objects of the site to the controller's host, if that is another one.

        Returns:
            What somebody should look at.

        Raises:
            StoreError, SiteLost: As in `ensure`.
        """

    async def close(self) -> None:
        """Cancel what runs, clean the devices that answer, and end. Within 4 s."""


#: Called with progress of a host task.
StageCallback = Callable[[StageEvent], None]


class TaskPool(Protocol):
    """Export hosts: where host tasks run. Cancelling the awaiting asyncio task ends the work."""

    def hosts(self) -> PoolHosts:
        """Say which hosts tasks may run on, and which of them are hosts of sites."""

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        """Run a task and return its result.

        Args:
            task: What to do.
            on_stage: Receives progress.
            but: Hosts of `hosts` that it must not run on, never all of them.

        Raises:
            FarmError: The task failed; its own error arrives unchanged.
        """

    async def close(self) -> None:
        """End every running task, with its processes, and free the pool. Within 2 s."""
