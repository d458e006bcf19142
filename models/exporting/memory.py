"""Will this machine hold the export? An estimate before minutes are spent. No torch."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from farm.core.artifact import ModelSource, Recipe
from farm.core.errors import ExportError
from farm.host.limits import read_limits
from models import known
from models.checkpoint import layer_tensors
from models.config import ModelConfig

#: torch, executorch and torchao in memory, and what tracing needs.
_BASE_BYTES = 700 << 20


def linear_parameters(config: ModelConfig) -> int:
    """Weights of all Linears, the output included."""
    query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = config.dim * (2 * query + 2 * kv) + 3 * config.dim * config.hidden
    return config.layers * layer + config.vocab * config.dim


def artifact_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """About how large the program will be."""
    bits = {"none": 32.0, "int8": 8.1, "4w": 4.5, "8da4w": 4.5}[recipe.linear]
    if recipe.group_size and recipe.linear in ("4w", "8da4w"):
        bits = 4 + 16 / recipe.group_size
    table = (recipe.embedding_bits or 32) * config.vocab * config.dim
    wide = max(0.0, 8 - bits) * _wide_parameters(config, recipe)
    return int((bits * linear_parameters(config) + wide + table) / 8)


def _wide_parameters(config: ModelConfig, recipe: Recipe) -> int:
    shapes = {"output.weight": (config.vocab, config.dim)}
    for layer in range(config.layers):
        shapes |= {k: v for k, v in layer_tensors(config, layer).items() if len(v) == 2}
    names = [name for name in shapes if recipe.is_wide(name.removesuffix(".weight"))]
    return sum(math.prod(shapes[name]) for name in names)


def export_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """About how much memory the farm engine needs at its peak.

    The finished constants, the largest matrix in float32 twice (the table or the output, while
    it is rounded), two layers, and the KV caches.
    """
    widest = 4 * config.vocab * config.dim
    layer = 4 * (linear_parameters(config) - config.vocab * config.dim) // config.layers
    caches = 8 * config.layers * recipe.max_context * config.kv_heads * config.head_dim
    return _BASE_BYTES + artifact_bytes(config, recipe) + 3 * max(widest, layer) + caches


def rough_export_bytes(parameters: int, recipe: Recipe) -> int:
    """As `export_bytes`, from the number of weights alone: what a scheduler sets aside."""
    bits = {"none": 32.0, "int8": 8.1, "4w": 4.5, "8da4w": 4.5}[recipe.linear]
    widest = min(parameters // 4, 600_000_000)
    return _BASE_BYTES + int(bits * parameters / 8) + 12 * widest


def source_parameters(source: ModelSource) -> int | None:
    """About how many weights a source holds, without opening it; None when nobody can tell yet.

    Raises:
        UnknownName: No such registry name.
    """
    if source.kind == "registry":
        return known.get(source.name).parameters
    path = Path(source.path or "")
    if source.kind == "gguf" and path.is_file():
        return path.stat().st_size * 2  # 4-bit weights at the least
    pattern = {"hf": "*.safetensors", "meta": "*.pth"}.get(source.kind)
    # A link to nothing is the reader's to name.
    files = [file for file in path.glob(pattern) if file.is_file()] if pattern else []
    sizes = [file.stat().st_size for file in files]
    return sum(sizes) // 2 or None


def available_bytes() -> int:
    """Memory that this machine, and the control group we are in, can give without swapping."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                found = int(line.split()[1]) * 1024
    limit = read_limits().memory_bytes
    return found if limit is None else min(found, limit)


def check_memory(
    config: ModelConfig, recipe: Recipe, available: int | None = None
) -> tuple[str, ...]:
    """Return a warning when the export will be tight.

    Raises:
        ExportError: It can't fit.
    """
    have = available_bytes() if available is None else available
    need = export_bytes(config, recipe)
    text = f"this export needs about {need / 2**30:.1f} GiB, {have / 2**30:.1f} GiB are free"
    if need > have:
        raise ExportError(f"{text}; use a machine with more memory", stage="check")
    return (text,) if need > 0.8 * have else ()
