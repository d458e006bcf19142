"""A board that is slowed while it decodes without a pause: the curve and its guards say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.device import Device
from farm.core.events import JobProgress
from farm.core.runtime import SustainedLaunch
from farm.judge.sustained import judge_sustained
from farm.reports import nights
from tests.lab.made_sys import CAPPED_KHZ, CEILING
from tests.lab.test_guards import TIMED, run
from tests.lab.test_site_jobs import Factory
from tests.unit.judge.builders import Case, facts

pytestmark = pytest.mark.lab

#: The launch before it gives the rate. Then windows of real work, until the ceiling has fallen and
#: as many again: however busy the machine is, both parts are there.
WORK = f"""
if [ -e before ]; then
  n=0; left=12
  while [ $left -gt 0 ]; do
    s=$(date +%s%N); i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; e=$(date +%s%N)
    n=$((n+1))
    echo "{{\\"window\\": [64, $((e-s)), $s]}}"
    echo "{{\\"progress\\": [\\"decode\\", $n, 100]}}"
    if [ $n -gt 12 ] && grep -q {CAPPED_KHZ} telemetry.jsonl; then left=$((left-1)); fi
  done
  echo '{{"done": true}}'
  exit 0
fi
touch before
"""


def test_a_board_that_is_capped_midway(ssh_device: Factory, tmp_path: Path) -> None:
    board = ssh_device(sensors=True)
    done = False

    def cap(event: JobProgress) -> None:
        nonlocal done
        if event.unit == "tokens" and event.done >= 12 and not done:
            done = True
            board.limit_cpu(0.05)
            board.set_sensor(CEILING, f"{CAPPED_KHZ}\n")

    long = SustainedLaunch(TIMED, 600.0)
    result, guards, _ = run(tmp_path, board.entry, WORK, cap, sustained=long)
    assert {guard.name for guard in guards if guard.state == "flagged"} & {"clock_cap"} == set()
    task = replace(Case().task(), run=result, device=Device(board.entry, facts()))
    workload = replace(task.spec.workload, sustained_s=600.0)
    task = replace(task, spec=replace(task.spec, workload=workload))
    seen, rows = judge_sustained(task, [])
    assert seen is not None
    assert seen.steady_tok_s is not None
    assert seen.first_tok_s is not None
    assert seen.steady_tok_s < 0.7 * seen.first_tok_s
    assert seen.throttled_after_s is not None
    assert 0 < seen.throttled_after_s < seen.seconds
    assert seen.guards["clock_cap"] == "flagged: policy0 from 2400 to 1500 MHz"
    assert "slowed by a tenth after" in nights.sustained(seen)
    assert [row.metric for row in rows] == ["first_minute", "steady"]
