"""Prints the largest difference between farm's attention and torch's operators in this process.

Run as a program: `COUNT PROGRAM...`, where PROGRAM is the compiled kernel driver, behind an
emulator where it needs one. Every edge case and COUNT random problems, with fp32 and int8 caches:
llama::custom_sdpa and llama::custom_quantized_sdpa.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings

from tests.unit.native.kernel_problems import EDGES, Driver, Problem, problems, round_rows


def _expected(p: Problem) -> Any:
    import torch

    *tensors, mask = (None if x is None else torch.from_numpy(x) for x in p.inputs())
    more = (p.start, mask, 0.0, p.causal)
    if not p.rounded:
        return torch.ops.llama.custom_sdpa(*tensors, *more).numpy()
    rows = [round_rows(x.numpy()) for x in tensors if x is not None]
    stored = [torch.from_numpy(x.stored) for x in rows]
    scales = [torch.from_numpy(y) for x in rows for y in (x.zeros, x.scales)]
    return torch.ops.llama.custom_quantized_sdpa(*stored, *more, None, *scales).numpy()


def main(count: int, command: list[str]) -> None:
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    *prefix, program = command
    driver = Driver(Path(program), {"FARM_TEST_THREADS": "2"}, tuple(prefix))
    worst = {False: 0.0, True: 0.0}
    shapes = {False: 0, True: 0}

    def compare(p: Problem) -> None:
        worst[p.rounded] = max(worst[p.rounded], float(abs(driver(p) - _expected(p)).max()))
        shapes[p.rounded] += 1

    @given(problems())
    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def sweep(p: Problem) -> None:
        assume(not (p.causal and p.masked))  # torch's operators refuse both at once
        compare(p)

    sweep()
    for edge in EDGES:
        compare(edge)
    driver.close()
    print(
        json.dumps(
            {
                "isa": driver.isa,
                "shapes": sum(shapes.values()),
                "shapes_int8": shapes[True],
                "max_abs_error": worst[False],
                "max_abs_error_int8": worst[True],
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
