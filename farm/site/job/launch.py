"""How one launch ended, by the supervisor's status and the runner's output. Pure."""

from __future__ import annotations

from farm.core.errors import (
    BadOutput,
    DeviceLost,
    FarmError,
    RunnerCrashed,
    RunnerError,
    RunnerTimeout,
    StorageFull,
)
from farm.core.runtime import LaunchRequest, LaunchResult
from farm.protocols import Runner
from farm.site.device.helper import Polled
from farm.site.parsers.start import Trouble, diagnose
from farm.site.parsers.text import clean_text

#: Bytes of standard error that an error carries.
TAIL_BYTES = 4096

_SIGNALS = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
}
_HINTS = {
    4: "an instruction that this processor doesn't have",
    9: "often the kernel's out-of-memory killer",
}


def read_launch(
    runner: Runner,
    request: LaunchRequest,
    status: Polled,
    stdout: bytes,
    stderr: bytes,
    launch: int,
    device: str,
) -> LaunchResult:
    """Make a result of a launch that ended.

    Args:
        runner: Knows the output.
        request: What it was asked to do.
        status: Last word of the supervisor.
        stdout: Everything that was printed.
        stderr: Everything it wrote there; its end suffices for a launch that went well.
        launch: Index of the launch.
        device: Name, for errors.

    Raises:
        RunnerError, StorageFull, DeviceLost: How it failed.
    """
    tail = clean_text(stderr[-TAIL_BYTES:])
    if status.state == "killed":
        raise _killed(status, tail, device)
    if status.exit_code != 0:
        # The runner's own error line says more than an exit code.
        try:
            runner.parse(stdout, launch, request)
        except RunnerCrashed as error:
            raise _about(error, status, tail, device) from error
        except BadOutput:
            pass
        # Everything it said: what is missing may be listed long before the end.
        output = stderr.decode("utf-8", "replace") + "\n" + stdout.decode("utf-8", "replace")
        raise _crashed(status, tail, device, diagnose(output, status.signal))
    try:
        return runner.parse(stdout, launch, request)
    except RunnerError as error:
        raise _about(error, status, tail, device) from error


def read_failure(status: Polled, stderr: bytes, device: str) -> FarmError:
    """Make an error of a launch of which only its end is known, not its output."""
    tail = clean_text(stderr[-TAIL_BYTES:])
    if status.state == "killed":
        return _killed(status, tail, device)
    return _crashed(status, tail, device)


def timed_out(limit_s: float, stderr: bytes, device: str) -> RunnerTimeout:
    """Error of a launch that we ended because its time was up."""
    tail = clean_text(stderr[-TAIL_BYTES:])
    return RunnerTimeout(
        f"{device}: the runner didn't end within {limit_s:.0f} s", device=device, stderr_tail=tail
    )


def _about(error: RunnerError, status: Polled, tail: str, device: str) -> RunnerError:
    context = {"code": status.exit_code, "signal": status.signal, "stderr_tail": tail}
    message = clean_text(error.message)
    return type(error)(f"{device}: {message}", **{**context, **error.context, "device": device})


def _crashed(
    status: Polled, tail: str, device: str, trouble: Trouble | None = None
) -> RunnerCrashed:
    if status.signal is not None:
        name = _SIGNALS.get(status.signal, f"signal {status.signal}")
        hint = _HINTS.get(status.signal)
        how = f"was ended by {name}" + (f" ({hint})" if hint else "")
    else:
        how = f"ended with exit code {status.exit_code}"
    last = tail.splitlines()[-1][:300] if tail else ""
    more: dict[str, str] = {}
    if trouble is not None:
        last = f"{trouble.output}. Remedy: {trouble.remedy}"
        more = {"trouble": trouble.kind, "remedy": trouble.remedy}
    return RunnerCrashed(
        f"{device}: the runner {how}" + (f": {last}" if last else ""),
        device=device,
        code=status.exit_code,
        signal=status.signal,
        stderr_tail=tail,
        **more,
    )


def _killed(status: Polled, tail: str, device: str) -> FarmError:
    reason = status.reason or "killed"
    if reason == "signal":
        return _crashed(status, tail, device)
    if reason == "stale_heartbeat":
        return DeviceLost(
            f"{device}: the runner was ended because the host didn't reach the device for too long",
            device=device,
        )
    if reason == "storage_full":
        return StorageFull(f"{device}: no space left for the runner's output", device=device)
    if reason == "output_limit":
        return BadOutput(f"{device}: the runner printed without end and was stopped", device=device)
    if reason in ("work_lost", "supervisor_lost"):
        return DeviceLost(f"{device}: the running job was lost ({reason})", device=device)
    return RunnerTimeout(
        f"{device}: the runner was stopped ({reason})", device=device, stderr_tail=tail
    )
