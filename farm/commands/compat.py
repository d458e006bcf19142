"""`farm compat`: programs of several ExecuTorch releases on the runtimes of all of them.

Old programs on new runtimes and new ones on old, on this machine: does each load, and are its
logits still right. Runtimes are the Python ones of the releases' wheels, which every release has,
and farm's native runner, which is built from the release that farm itself uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from farm.commands.interpreters import interpreter
from farm.core.errors import ConfigError
from farm.core.result import CellResult
from farm.core.view import ViewEvent
from farm.planning.planning import RunOptions
from farm.reports.summary import device_stage
from farm.run.run import Finished, run_config

#: The least that runs every step: speed is not the question.
_WORK = {
    "prefill": [16], "decode": [8], "launches": 1, "max_launches": 1, "cold_launches": 0,
    "repetitions": 1, "budget_s": 30,
}  # fmt: skip
_NATIVE = "executorch"
_PREFIX = "runtime-"

Emit = Callable[[ViewEvent], None]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Programs of one release on one runtime."""

    model: str
    recipe: str
    #: Release that exported it.
    exported: str
    #: Release whose runtime ran it; `native` for farm's own runner.
    runtime: str
    #: `works`, `wrong` (its numbers), `does not run`, or `not tried`.
    state: str
    #: KL divergence of its logits from those of the same program in farm's native runner, nats;
    #: 0 where they are bit-equal. None: there were none.
    kl_mean: float | None
    top1_agreement: float | None
    perplexity: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Compat:
    """Every pairing, and the run that found them."""

    finished: Finished
    pairings: tuple[Pairing, ...]

    @property
    def exit_code(self) -> int:
        """0: all work; 1: one is wrong or doesn't run; 3: one could not be tried."""
        states = {one.state for one in self.pairings}
        if states & {"wrong", "does not run"}:
            return 1
        return 0 if states == {"works"} else 3


def compat(
    options: RunOptions, versions: Sequence[str], home: Path, emit: Emit, inventory: Path
) -> Compat:
    """Export with each release, and run each program on each runtime.

    Args:
        options: The config and where to write.
        versions: Releases, `1.4.1`.
        home: FARM_HOME.
        emit: Receives view events.
        inventory: File to write: this machine alone.

    Raises:
        ConfigError: Fewer than two releases, or one twice; or as a run.
        ExportError: The environment of a release can't be made.
    """
    if len(set(versions)) != len(versions) or len(versions) < 2:
        raise ConfigError(
            "--versions: write two releases or more, each once: `--versions 1.4.1,1.5.1`"
        )
    own = metadata.version("executorch")
    chains = {name: {"executorch": f"=={name}"} for name in versions if name != own}
    names = ["default" if name == own else name for name in versions]
    words = (
        *options.overrides,
        f"toolchains={json.dumps(chains)}",
        f"matrix.toolchain={json.dumps(names)}",
        f"workload={json.dumps(_WORK)}",
        "gates={}",
    )
    pythons = {name: interpreter(_with(options, words), name, home, emit) for name in versions}
    runners = {
        f"{_PREFIX}{name}": {"kind": "executorch_python", "python": python}
        for name, python in pythons.items()
    }
    words = (
        *words,
        f"runners={json.dumps(runners)}",
        f"matrix.runner={json.dumps([*runners, _NATIVE])}",
        'devices=[{"each": "transport=local"}]',
    )
    inventory.write_text("devices: []\ndefaults: {adb: none, local: true}\n", "utf-8")
    finished = run_config(_with(options, words, inventory), home, emit)
    found = tuple(_pairing(result, own) for result in finished.report.results)
    return Compat(finished, found)


def _with(options: RunOptions, words: tuple[str, ...], inventory: Path | None = None) -> RunOptions:
    return RunOptions(
        config=options.config,
        inventory=inventory,
        overrides=words,
        cluster=options.cluster,
        out=options.out,
    )


def _pairing(result: CellResult, own: str) -> Pairing:
    stage = device_stage(result.correctness.stages) if result.correctness else None
    runner = result.runner.name
    crashed = result.attempts[-1].error if result.attempts else None
    state = {"passed": "works", "failed": "wrong"}.get(result.outcome, "not tried")
    if state == "not tried" and crashed is not None and crashed.kind.startswith("Runner"):
        state = "does not run"
    return Pairing(
        model=result.model,
        recipe=result.recipe,
        exported=own if result.toolchain == "default" else result.toolchain,
        runtime="native" if runner == _NATIVE else runner.removeprefix(_PREFIX),
        state=state,
        kl_mean=None if stage is None else 0.0 if stage.bit_equal else stage.kl_mean,
        top1_agreement=None if stage is None else stage.top1_agreement,
        perplexity=None if stage is None else stage.perplexity_to,
        reason=result.reason,
    )


def lines(found: Compat) -> list[tuple[str, ...]]:
    """Return a line of words for each pairing."""
    return [
        (
            f"{one.model}/{one.recipe}",
            one.exported,
            one.runtime,
            one.state,
            ""
            if one.kl_mean is None
            else "bit-equal"
            if one.kl_mean == 0
            else f"{one.kl_mean:.2g}",
            "" if one.top1_agreement is None else f"{one.top1_agreement:.0%}",
            "" if one.perplexity is None else f"{one.perplexity:.5g}",
            "" if one.state == "works" else one.reason[:200],
        )
        for one in found.pairings
    ]


HEADER = ("program", "exported by", "runtime", "", "KL", "top-1", "perplexity", "why")
