"""What became of each export of a run."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.artifact import ExportResult, ToolchainVersions
from farm.core.errors import FarmError
from farm.core.plan import ArtifactId
from farm.core.report import export_report
from farm.core.result import ExportReport
from farm.core.tasks import ExportTask


class ExportLog:
    """What became of each export of a run."""

    def __init__(self) -> None:
        self.results: dict[ArtifactId, ExportResult | FarmError] = {}

    def note(self, task: object, outcome: object) -> None:
        """Take in the end of a host task."""
        if isinstance(task, ExportTask) and isinstance(outcome, ExportResult | FarmError):
            request = task.request
            artifact = ArtifactId(request.model.name, request.recipe.name, request.toolchain.name)
            self.results[artifact] = outcome

    def reports(self, artifacts: Sequence[ArtifactId]) -> list[ExportReport]:
        """Describe each export that ended."""
        found = []
        for artifact in artifacts:
            outcome = self.results.get(artifact)
            if isinstance(outcome, ExportResult):
                found.append(export_report(artifact, outcome, None))
            elif outcome is not None:
                found.append(export_report(artifact, None, outcome))
        return found

    def versions(self) -> dict[str, ToolchainVersions]:
        """Return the resolved versions by toolchain."""
        return {
            artifact.toolchain: outcome.versions
            for artifact, outcome in self.results.items()
            if isinstance(outcome, ExportResult)
        }
