"""What became of each export of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from farm import codec
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

    def restore(self, events: Iterable[Mapping[str, Any]], artifacts: Sequence[ArtifactId]) -> None:
        """Take in the exports that a journal tells of; the last end of each counts."""
        by_task = {f"export:{artifact}": artifact for artifact in artifacts}
        for event in events:
            artifact = by_task.get(event.get("task", "")) if event["kind"] == "task" else None
            if artifact is None:
                continue
            if event["export"] is not None:
                self.results[artifact] = codec.from_data(ExportResult, event["export"])
            elif not isinstance(self.results.get(artifact), ExportResult):
                self.results[artifact] = FarmError(str(event["error"]))

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
