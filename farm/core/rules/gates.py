"""The gates that exist, what each is about, and which metrics of a cell it applies to. Pure."""

from __future__ import annotations

from typing import Literal

GateKind = Literal["correctness", "speed", "memory", "work"]

#: Gates on logits, judged on the decode path: perplexity of the device artifact, the rest from
#: eager_fp32 to device_pte, or to the stage that the gate is relative to.
CORRECTNESS_METRICS = (
    "perplexity",
    "kl_mean",
    "kl_max",
    "top1_agreement",
    "cosine_min",
    "max_abs_error",
)
#: Gates on speed, and the metrics of the report that each of them applies to, by prefix.
PERFORMANCE_METRICS = {
    "prefill_tok_s": "pp",
    "decode_tok_s": "tg",
    "ttft_s": "ttft",
    "load_s": "load",
    "inter_token_s": "inter_token",
    "first_minute_tok_s": "first_minute",
    "steady_tok_s": "steady",
}
MEMORY_METRICS = ("peak_rss_bytes",)
#: Rules that judge every cell; a config can't set them, but a waiver may name them.
BUILT_IN = (
    "bit_equal",
    "canary",
    "direction",
    "finite",
    "layer_gain",
    "layer_replay",
    "perplexity_change",
    "regret",
    "repeatable",
    "shape",
    "text",
    "timed_tokens",
    "token_ids",
    "vocabulary",
    "weights",
)
#: The gate on the loss against a baseline.
REGRESS = "regress"


def kind_of(metric: str) -> GateKind:
    """Tell what a gate or a metric of a report is about; names of rates and times are speed."""
    if metric in MEMORY_METRICS:
        return "memory"
    if metric.startswith("instructions@"):
        return "work"
    return "correctness" if metric in (*CORRECTNESS_METRICS, *BUILT_IN) else "speed"


def applies(gate: str, metric: str) -> bool:
    """Tell whether a gate is about a metric of the report: by its class, or by its own name."""
    prefix = PERFORMANCE_METRICS.get(gate)
    if prefix is None:
        return gate == metric
    rest = metric.removeprefix(prefix)
    return metric.startswith(prefix) and (rest == "" or rest[0] in "@0123456789")


def is_gated(metric: str) -> bool:
    """Whether a metric of speed is held against the baseline."""
    name = metric.split("@")[0]
    return name in ("ttft", "load") or (name[:2] in ("pp", "tg") and name[2:].isdigit())
