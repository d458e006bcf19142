"""What a green nightly deploys; no other night deploys anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm.core.spec import DeployWish
from farm.deploy import begin, work
from farm.deploy.begin import DeployRequest
from farm.deploy.release import open_run
from farm.deploy.work import Ended, Show
from farm.planning.reach import reaching
from farm.run.run import Finished


def wish_of(finished: Finished, home: Path) -> DeployWish | None:
    """Return what a night deploys; None after any exit code but 0, or where nothing is asked for.

    Raises:
        StoreError: The run's plan is damaged.
    """
    if finished.report.exit_code != 0:
        return None
    return open_run(finished.folder, home).saved.spec.deploy


def deploy_night(
    wish: DeployWish,
    finished: Finished,
    home: Path,
    show: Show,
    cluster: str = "none",
) -> Ended:
    """Deploy what a night validated, to devices of its own inventory: also where it was resumed.

    Raises:
        FarmError: Nothing can be deployed; says why.
    """
    inventory = open_run(finished.folder, home).saved.asked["inventory"]
    request = DeployRequest(
        run=str(finished.folder),
        to=wish.to,
        cells=wish.cells,
        inventory=Path(inventory) if inventory else None,
        name=wish.name,
        stages=wish.stages,
        wait_s=wish.wait_s,
    )
    with reaching(cluster, home) as reach:
        planned = begin.plan(replace(request, out=finished.folder.parent), home, reach)
        return work.begin(planned.saved, home, show, reach)
