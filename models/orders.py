"""What a worker process reads and writes: one JSON request in, JSON lines out. No torch.

The same protocol serves every toolchain, so both ends may come from different versions of
executorch, though never from different versions of farm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from farm.core.artifact import ExportRequest, ExportResult, Toolchain, ToolchainVersions
from farm.core.reference import ReferenceRequest, ReferenceResult


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """Export into a staging folder."""

    request: ExportRequest
    #: Key of the result, from `models.exporting.identify`.
    key: str
    #: Folder of downloaded model files.
    cache: str
    #: Existing folder that receives the files; the caller moves them into its store.
    staging: str
    #: Threads for torch; 0 leaves its default.
    threads: int = 0
    task: Literal["export"] = "export"


@dataclass(frozen=True, slots=True)
class ReferenceOrder:
    """Compute eager logits into a staging folder."""

    request: ReferenceRequest
    cache: str
    staging: str
    threads: int = 0
    task: Literal["reference"] = "reference"


@dataclass(frozen=True, slots=True)
class InstallOrder:
    """Build the environment of a toolchain, while nobody else does."""

    toolchain: Toolchain
    #: What pip is asked for: a pinned release, or wheel files.
    requirements: tuple[str, ...]
    #: Where; whatever stands there is replaced.
    folder: str
    task: Literal["install"] = "install"


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """A finished export. Every ObjectRef in it names a file of the staging folder."""

    result: ExportResult
    #: sha256 -> file name in the staging folder.
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """Finished references, as ExportAnswer."""

    result: ReferenceResult
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class InstallAnswer:
    """An environment that stands."""

    result: ToolchainVersions


Order = ExportOrder | ReferenceOrder | InstallOrder
