"""Run a config from Python, look at what it found, and hold it against an earlier run.

    python examples/python/look.py configs/tiny.yaml [BUNDLE]

Exit code as `farm run`'s.
"""

from __future__ import annotations

import sys

import farm


def main(config: str, earlier: str | None = None) -> int:
    run = farm.run(config, select="transport=local", cluster="none", quick=True)
    print(run.verdict)
    print(run.why)

    metrics = run.metrics().query("regime == 'warm'")
    print(metrics[["device", "metric", "median", "low", "high", "unit", "trust"]].to_string())

    # Launches differ more than the samples of one launch do: look at both.
    samples = run.samples().query("regime == 'warm' and arm == 'candidate'")
    print(samples.groupby(["metric", "launch"])["value"].median().unstack().to_string())

    stages = run.stages()[["from", "to", "path", "tokens", "bit_equal", "kl_mean"]]
    print(stages.to_string())

    if earlier is not None:  # a run id, a folder, or a bundle that somebody sent
        before = farm.load(earlier).metrics()
        both = metrics.merge(before, on=["cell_id", "metric", "regime"], suffixes=("", "_before"))
        print(both[["cell_id", "metric", "median", "median_before"]].to_string())
        print(
            "numbers of two sittings: look, don't judge; `farm compare` says what can't be compared"
        )
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
