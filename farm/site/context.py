"""What every session of a site shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farm.core.runner import RunnerSpec
from farm.protocols import OpenTransport, Runner
from farm.store.objects import ContentStore


@dataclass(frozen=True, slots=True)
class Limits:
    """Times that decide about lost devices, seconds."""

    #: Without a poll for this long the device ends a job by itself.
    stale_s: float = 45.0
    #: One long poll; its connection has to answer soon after.
    poll_s: float = 5.0
    #: How long a lost device is looked for. Less than `stale_s`: its job is ended after that.
    reconnect_s: float = 30.0
    #: All of the clean-up after a failure, and after a cancellation.
    clean_s: float = 12.0
    cancelled_clean_s: float = 2.0
    #: A lease that nobody renews ends after this.
    lease_s: float = 60.0


@dataclass(frozen=True, slots=True)
class SiteContext:
    """Folders and factories of one host."""

    #: FARM_HOME of this host.
    home: Path
    store: ContentStore
    open_transport: OpenTransport
    #: Makes the runner of a job; raises ConfigError.
    find_runner: Callable[[RunnerSpec], Runner]
    limits: Limits = field(default_factory=Limits)
