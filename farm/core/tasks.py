"""Work for export hosts: any machine with a CPU, no device needed. Plain, picklable requests.

Each kind has one function in farm.tasks.perform, which Ray and the in-process pool both call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farm.core.artifact import (
    Bundle,
    CanaryProgram,
    ExportRequest,
    ExportResult,
    LogitsPass,
    Recipe,
    Sdk,
)
from farm.core.asked import Prompt
from farm.core.device import Device
from farm.core.hostrun import HostRunResult
from farm.core.judgement import Judgement
from farm.core.reference import ReferenceRequest, ReferenceResult, Tokenized
from farm.core.runner import OWN, RunnerSpec
from farm.core.runtime import DeviceRunResult
from farm.core.spec import Resources, RunSpec


@dataclass(frozen=True, slots=True)
class ExportTask:
    """Make, or find in the store, one artifact."""

    task_id: str
    request: ExportRequest
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class TokensTask:
    """Tokenise the text: what devices need to begin. Its reference computes meanwhile."""

    task_id: str
    request: ReferenceRequest
    prompts: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceTask:
    """Tokenise the text and compute eager logits."""

    task_id: str
    request: ReferenceRequest
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class HostRunTask:
    """Run the artifact on this host: its logits, and its noise floor."""

    task_id: str
    bundle: Bundle
    tokens: tuple[int, ...]
    passes: tuple[LogitsPass, ...]
    sdk: Sdk = field(default_factory=Sdk)
    #: One of those that farm builds itself.
    runner: RunnerSpec = OWN
    #: Features of the devices' CPUs. Where one has others than this host's, the host's other code
    #: runs too, as a control.
    features: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Judge one finished device run."""

    task_id: str
    spec: RunSpec
    device: Device
    threads: int
    runner: RunnerSpec
    recipe: Recipe
    export: ExportResult
    reference: ReferenceResult
    #: None where no export host can run the artifact (another runner or backend).
    host: HostRunResult | None
    run: DeviceRunResult
    #: Why there is none where one was wanted; empty where nothing failed.
    host_error: str = ""
    #: What the device's canary is judged by; None where there is none.
    canary: CanaryProgram | None = None
    #: How to get eager logits for the device's answer, where text is all that it gives.
    answer: ReferenceTask | None = None


@dataclass(frozen=True, slots=True)
class CanaryTask:
    """Make, or find in the store, the program that checks the kernels of every device."""

    task_id: str
    resources: Resources = field(default_factory=Resources)


HostTask = ExportTask | TokensTask | ReferenceTask | HostRunTask | CompareTask | CanaryTask
HostTaskResult = (
    ExportResult | Tokenized | ReferenceResult | HostRunResult | Judgement | CanaryProgram
)

#: Name of each kind, for people and for history.
KIND_NAMES: dict[type[HostTask], str] = {
    ExportTask: "export",
    TokensTask: "tokens",
    ReferenceTask: "reference",
    HostRunTask: "host_run",
    CompareTask: "compare",
    CanaryTask: "canary",
}

#: The one host of a pool that has one.
HERE = "here"


@dataclass(frozen=True, slots=True)
class PoolHosts:
    """The hosts that a pool's tasks may run on."""

    names: frozenset[str] = frozenset({HERE})
    #: Host by site, for sites whose host is one of them; the empty name is the controller's.
    of_site: Mapping[str, str] = field(default_factory=lambda: {"": HERE})

    def host_of(self, site: str) -> str:
        """Return the host of a site; one that the pool doesn't use has a name of its own."""
        return self.of_site.get(site, f"site {site}")
