"""Speeds of a machine that others use too, for tests of what comes after the run."""

from __future__ import annotations

import json

from tests.command import Farm


def count_speeds(farm: Farm) -> None:
    """Let the speeds of the latest run count, where somebody else's work took their trust.

    Its report then says noisy for invalid, and passed where only the speed was in the way. What
    the tests look at afterwards is a device that is far slower, another one, or gone.
    """
    path = farm.cwd / "runs" / "latest" / "report.json"
    report = json.loads(path.read_text())
    for result in report["results"]:
        for row in result["performance"]:
            if row["trust"] == "invalid":
                print("not to be trusted here:", row["metric"], row["guards"])
                row["trust"] = "noisy"
        if result["outcome"] == "inconclusive" and result["correctness_decision"] == "passed":
            result["outcome"] = "passed"
    path.write_text(json.dumps(report))
