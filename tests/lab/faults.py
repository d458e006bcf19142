"""The table of faults: what is done to a device while it has a job, and what has to come of it.

Each row is made for real on a device over adb and on one over SSH by `tests.lab.test_faults`;
rows of `ELSEWHERE` are proved by the tests that they name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from farm.core.errors import (
    BadOutput,
    DeviceLost,
    FarmError,
    Interrupted,
    RunnerCrashed,
    RunnerError,
    RunnerTimeout,
    StorageFull,
    TransferError,
    TransportError,
)
from farm.core.runner import DeployFile
from farm.site.context import Limits
from tests.contract.toy_runner import GOOD
from tests.lab import board
from tests.lab.fault_acts import (
    Act,
    Scene,
    cancel,
    cap_clock,
    cool,
    half_full,
    heat,
    kill_server,
    missing_library,
    other_host_key,
    restart_after,
    second_controller,
    shift_times,
    uncap_clock,
    unplug_for,
    wipe,
)
from tests.lab.made_sys import RUNS_UNTIL_CAPPED

#: Where the tests leave the measured times: fault, then transport, to seconds.
TIMES = Path(__file__).parents[2] / "build" / "lab-faults"
#: A frozen or gone device is noticed after about 10 s.
NOTICED_S = 15.0

_SHORT = Limits(stale_s=9.0, poll_s=1.0, reconnect_s=4.0, clean_s=3.0)
_USUAL = Limits(poll_s=1.0)
#: Progress right after the last one isn't passed on.
_SAYING = 'sleep 0.5; echo "{\\"progress\\": [\\"decode\\", 1, 9]}"\n'
_STEPS = '{\\"progress\\": [\\"decode\\", $i, 9]}'
_SLOW = f'for i in 1 2 3 4; do echo "{_STEPS}"; sleep 1; done\n' + GOOD
_LONG = f'for i in 1 2 3 4 5 6 7 8; do echo "{_STEPS}"; sleep 4; done\n' + GOOD
_FOREVER = _SAYING + "sleep 1000 & sleep 1000\n"
_BIG = GOOD + "exit 0\n" + "#" * (24 << 20)
#: Same size and time, other content.
_DAMAGE = (
    'object=$(readlink -f model.pte); touch -r "$object" stamp\n'
    "sed s/progress/PROGRESS/ model.pte > changed\n"
    'cat changed > "$object"; touch -r stamp "$object"\n'
)
_ESCAPES = r"printf '\033]0;owned\007\033[31mred\033[0m\n' >&2" + "\n"


@dataclass(frozen=True)
class Fault:
    """One row."""

    name: str
    #: The outcome as people read it.
    outcome: str
    #: Classes of the job's error; none when it gives a result all the same.
    errors: tuple[type[FarmError], ...] = ()
    #: Regular expression that the error's message or standard error holds.
    says: str = ""
    model: str = _SLOW
    #: `before` the job, in the middle of its `push`, or of its `run`.
    when: str = "run"
    strike: Act = lambda _scene: None
    #: Makes the device usable again, before the next job.
    mend: Act = lambda _scene: None
    limits: Limits = _SHORT
    timeout_s: float = 60.0
    #: Longest time until the job's owner hears of it; None when nothing is to be heard.
    noticed_s: float | None = None
    #: Bytes a second of the link during the job.
    rate: float | None = None
    #: The one transport that knows this fault; the other's proof stands in `elsewhere`.
    only: str | None = None
    elsewhere: str = ""
    files: Callable[[Scene], tuple[DeployFile, ...]] = lambda _scene: ()
    #: Progress in which it shows; empty for the word of a lost connection.
    shows: str = ""
    #: Guards that make its speed invalid, each with what it says; its launch is timed then.
    flags: tuple[tuple[str, str], ...] = ()


_LOST = (DeviceLost, TransportError)
_FREEZE = {
    "errors": _LOST,
    "strike": lambda scene: scene.machine.freeze(),
    "mend": lambda scene: scene.machine.thaw(),
    "noticed_s": NOTICED_S,
}
_PARTITION = {
    "errors": _LOST,
    "strike": lambda scene: scene.machine.network.partition(),
    "mend": lambda scene: scene.machine.network.heal(),
    "noticed_s": NOTICED_S,
}
_PUSHING = {"when": "push", "model": _BIG, "rate": 6e6}
_HINDERED = {"when": "before", "limits": _USUAL, "model": _SAYING + GOOD}
_RETRIED = "device lost, tried again elsewhere"

#: Made in the middle of a job by one test that has every row.
FAULTS: tuple[Fault, ...] = (
    Fault("freeze during push", _RETRIED, **_FREEZE, **_PUSHING),  # type: ignore[arg-type]
    Fault("freeze during run", _RETRIED, model=_FOREVER, **_FREEZE),  # type: ignore[arg-type]
    Fault("partition during push", _RETRIED, **_PARTITION, **_PUSHING),  # type: ignore[arg-type]
    Fault("partition during run", _RETRIED, model=_FOREVER, **_PARTITION),  # type: ignore[arg-type]
    Fault(
        "power cut during push",
        "the rest is pushed once the device is back",
        strike=restart_after(1.0),
        limits=replace(_SHORT, reconnect_s=20.0),
        **_PUSHING,  # type: ignore[arg-type]
    ),
    Fault(
        "power cut during run",
        "device lost, tried again; the next job clears the work folder",
        errors=(DeviceLost,),
        strike=restart_after(1.0),
        model=_FOREVER,
        limits=replace(_SHORT, reconnect_s=20.0),
        noticed_s=NOTICED_S,
    ),
    Fault(
        "power cut for good",
        _RETRIED,
        errors=_LOST,
        strike=lambda scene: scene.machine.kill(),
        mend=lambda scene: scene.machine.start(),
        model=_FOREVER,
        noticed_s=NOTICED_S,
    ),
    Fault(
        "link down for 20 s and back",
        "the job goes on and passes",
        strike=unplug_for(20.0),
        model=_LONG,
        limits=_USUAL,
    ),
    Fault(
        "link down for 3 s during push",
        "the rest is pushed, the job passes",
        strike=unplug_for(3.0),
        **_PUSHING,  # type: ignore[arg-type]
    ),
    Fault(
        "adb server killed; sshd killed with its sessions",
        "the job goes on and passes",
        strike=kill_server,
        limits=_USUAL,
    ),
    Fault(
        "adbd or sshd restarted",
        "the job goes on and passes",
        strike=lambda scene: scene.machine.restart_daemon(),
        limits=_USUAL,
    ),
    Fault(
        "host key changed",
        "device lost: the host key HAS CHANGED, with both fingerprints and the remedy",
        errors=_LOST,
        says="HAS CHANGED",
        strike=other_host_key,
        mend=lambda scene: board.trust(scene.machine),
        model=_FOREVER,
        noticed_s=NOTICED_S,
        only="ssh",
        elsewhere="tests/unit/transports/test_adb_devices.py::test_each_bad_state_names_its_remedy",
    ),
    Fault(
        "disk full at 50 % of a push",
        "storage full, with the file",
        errors=(StorageFull,),
        strike=half_full,
        mend=lambda scene: scene.machine.unfill(),
        noticed_s=NOTICED_S,
        **_PUSHING,  # type: ignore[arg-type]
    ),
    Fault(
        "device wiped during run",
        "device lost: it was restarted or wiped",
        errors=(DeviceLost,),
        strike=wipe,
        model=_FOREVER,
        noticed_s=NOTICED_S,
    ),
    Fault(
        "sha mismatch on the device",
        "transfer error before the verdict; the next job replaces the file",
        errors=(TransferError,),
        says="not what was deployed",
        model=_SAYING + GOOD + _DAMAGE,
    ),
    Fault(
        "runner misses a library",
        "runner crashed, naming the library",
        errors=(RunnerCrashed,),
        says=r"libabsent\.so",
        model=_SAYING + "exec ./program\n",
        files=missing_library,
    ),
    Fault(
        "runner prints garbage",
        "bad output, with its first bytes",
        errors=(BadOutput,),
        model=_SAYING + "head -c 50000 /dev/urandom\n",
    ),
    Fault(
        "runner prints 1 GB",
        "bad output at 16 MiB; the runner is ended",
        errors=(BadOutput,),
        says="without end",
        model=_SAYING + "head -c 1000000000 /dev/zero\n",
    ),
    Fault("runner prints nothing", "bad output", errors=(BadOutput,), model="exit 0\n"),
    Fault(
        "runner says nothing for ever",
        "runner timeout",
        errors=(RunnerTimeout,),
        model="sleep 1000 & sleep 1000\n",
        timeout_s=2.0,
    ),
    Fault(
        "output of terminal escapes and ../ names",
        "bad output, shown without escapes; nothing outside its folder is read",
        errors=(BadOutput,),
        says="secret",
        model=_SAYING
        + _ESCAPES
        + GOOD.replace('"decode", "decode.f32"', '"decode", "../../../secret"'),
    ),
    Fault(
        "runner killed by a signal",
        "runner crashed with SIGSEGV",
        errors=(RunnerCrashed,),
        says="SIGSEGV",
        model=_SAYING + "kill -11 $$\n",
    ),
    Fault(
        "device clock wrong by a year",
        "passes; files are hashed again, nothing is pushed, the lease holds",
        when="run",
        strike=shift_times,
    ),
    Fault(
        "two controllers at once",
        "the second is told who holds the device; the first passes",
        strike=second_controller,
    ),
    Fault(
        "cancelled",
        "interrupted within 3 s",
        errors=(Interrupted,),
        strike=cancel,
        model=_FOREVER,
        noticed_s=5.0,
    ),
    Fault(
        "latency of 250 ms each way",
        "passes",
        strike=lambda scene: scene.machine.network.delay(0.25, 0.05),
        mend=lambda scene: scene.machine.network.undelay(),
        **_HINDERED,  # type: ignore[arg-type]
    ),
    Fault(
        "5 % of packets lost",
        "passes",
        strike=lambda scene: scene.machine.network.lose(0.05),
        mend=lambda scene: scene.machine.network.heal(),
        **_HINDERED,  # type: ignore[arg-type]
    ),
    Fault(
        "low bandwidth, 500 kB/s",
        "passes",
        when="before",
        model=_SAYING + GOOD + "exit 0\n" + "#" * (2 << 20),
        rate=5e5,
    ),
    Fault(
        "memory limit",
        "runner crashed with SIGKILL, a hint at the out-of-memory killer",
        errors=(RunnerCrashed,),
        says="out-of-memory",
        strike=lambda scene: scene.machine.limit_memory(96 << 20),
        mend=lambda scene: scene.machine.unlimit(),
        model=_SAYING + "sleep 1; truncate -s 400000000 big; exec sort big\n",
    ),
    Fault(
        "limit of processes",
        "runner error, with what its shell said; lost where its adbd ends too",
        errors=(RunnerError, DeviceLost),
        strike=lambda scene: scene.machine.limit_processes(12),
        mend=lambda scene: scene.machine.unlimit(),
        model=_SAYING + "sleep 1; for i in 1 2 3 4 5 6 7 8 9 a b c d; do sleep 1000 & done\n",
    ),
    Fault(
        "CPU quota of a quarter of a core",
        "passes, more slowly",
        strike=lambda scene: scene.machine.limit_cpu(0.25),
        mend=lambda scene: scene.machine.unlimit(),
        **_HINDERED,  # type: ignore[arg-type]
    ),
    Fault(
        "heat that stays",
        "waited for in view, at most as the inventory says; then it passes, its speed invalid",
        strike=heat,
        mend=cool,
        noticed_s=NOTICED_S,
        shows="cooling down: ",
        flags=(("hot_start", r"°C, limit (37|70) after \d+ s of waiting"),),
        **_HINDERED,  # type: ignore[arg-type]
    ),
    Fault(
        "the clock's ceiling falls during run",
        "passes, its speed invalid",
        strike=cap_clock,
        mend=uncap_clock,
        limits=_USUAL,
        model=RUNS_UNTIL_CAPPED + GOOD,
        flags=(("clock_cap", "policy0 from 2400 to 1500 MHz"),),
    ),
)

_RUN_LAB = "tests/lab/test_run_lab.py::"
_RUN_CARE = "tests/lab/test_run_care.py::"
#: Rows that need more than one job: their tests, which have both transports.
ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    (
        "controller killed -9",
        "jobs end by themselves within 60 s; the next run clears what is left and passes",
        _RUN_LAB + "test_killed_controllers_leave_nothing_for_long_and_the_next_run_passes",
    ),
    (
        "two whole runs on one device",
        "the second waits for the lease of the first; both pass",
        _RUN_CARE + "test_the_second_of_two_runs_waits_for_the_lease_and_both_pass",
    ),
    (
        "breaks once in a run (SSH), or each time (adb)",
        "recovered by its inventory's step and retried; after three in a row quarantined, until a"
        " probe",
        _RUN_CARE
        + "test_a_device_that_breaks_is_recovered_and_one_that_always_does_is_quarantined",
    ),
    (
        "job's host gone for good",
        "the device ends the job by itself when nobody polls it",
        "tests/lab/test_site_faults.py::test_job_dies_with_a_lost_host",
    ),
    (
        "one of a pool killed",
        "retried on an equal device; a lone one is errored and the others finish",
        _RUN_LAB + "test_killed_lone_device_is_errored_and_the_others_finish",
    ),
    (
        "32 devices frozen beside a healthy one",
        "its round trip stays under 50 ms, its job isn't delayed",
        "tests/lab/test_frozen.py::test_healthy_device_beside_32_frozen_ones_is_not_disturbed",
    ),
    (
        "adb server restarted every 2 s by another adb",
        "the job goes on and passes; the server is named, the phone not blamed",
        "tests/lab/test_adb_server.py::test_a_server_restarted_again_and_again_costs_no_job",
    ),
    (
        "hashing outlasts the lease, another controller asks",
        "one result; the other one waits",
        "tests/lab/test_slow_hash.py::test_finished_work_is_kept_and_nobody_comes_in_between",
    ),
    (
        "restarted under a person's hold",
        "it stays held until the hold's end",
        "tests/lab/test_devices_cli.py::test_a_hold_outlives_its_command_and_keeps_runs_away",
    ),
)


def slug(name: str) -> str:
    """A row's name as a file name and test id."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")
