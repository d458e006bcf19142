"""The arms of a job: the candidate's files, and those of the baseline beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.core.runner import DeployFile, RunnerBuild, WorkFiles
from farm.core.runtime import BaselineArm
from farm.site.device.helper import DeviceHelper


@dataclass(frozen=True, slots=True)
class ArmFiles:
    """One arm on the device."""

    artifact: tuple[DeployFile, ...]
    build: RunnerBuild
    #: Its work folder.
    work: str

    def named(self, tokenizer: DeployFile | None) -> WorkFiles:
        """What a launch finds in the work folder: the program first, then its weights."""
        model, *data = (file.path for file in self.artifact)
        return WorkFiles(model, tuple(data), None if tokenizer is None else tokenizer.path)

    def evict(self, helper: DeviceHelper) -> float:
        """Put its files out of the page cache; return the share of the artifact that stayed."""
        helper.evict([f"{self.work}/{file.path}" for file in self.build.files])
        return helper.evict([f"{self.work}/{file.path}" for file in self.artifact])


def is_same(baseline: BaselineArm, artifact: Sequence[DeployFile], build: RunnerBuild) -> bool:
    """True when both arms would run the same bytes."""
    return baseline.runner.sha256 == build.sha256 and [
        (file.path, file.object.sha256) for file in baseline.artifact
    ] == [(file.path, file.object.sha256) for file in artifact]
