"""Stock `export_llm`, with any of its keys: what the farm engine doesn't lower itself.

The checkpoint is written once more in the format that stock reads. Which quantiser, partitioner
or compiler runs is stock's business.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from farm.core.artifact import Delegation, Recipe
from farm.core.errors import ConfigError, ExportError
from models.checkpoint import Checkpoint, layer_tensors, outer_tensors
from models.config import ModelConfig, RopeScaling
from models.eager.parts import tied_reader
from models.eager.quantise import LinearFormat
from models.lowering.checks import export_warnings

OnStage = Callable[[str, int, int, str], None]

#: What has to be installed for a backend whose compiler isn't in the wheel.
_COMPILERS = {
    "qnn": "Qualcomm's AI Engine Direct SDK and executorch's qualcomm backend, built from source",
    "openvino": "the `openvino` and `nncf` packages",
    "mps": "macOS",
    "coreml": "the `coremltools` package",
    "vulkan": "the `executorch` wheel of a platform that has it",
}

Outcome = tuple[Delegation | None, tuple[str, ...], tuple[str, ...]]


def export_stock(
    checkpoint: Checkpoint, recipe: Recipe, program: Path, on_stage: OnStage
) -> Outcome:
    """Export a model to the file `program` with stock export_llm.

    Returns:
        Delegation, names of Linears that stay in fp32 against the recipe, and warnings.

    Raises:
        ConfigError: An option that LlmConfig doesn't have.
        ExportError: Stock failed; says which compiler is missing where that is the reason.
    """
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="stock-") as name:
        folder = Path(name)
        on_stage("convert", 1, 2, "writing the checkpoint for export_llm")
        save_checkpoint(checkpoint, folder)
        config = stock_config(checkpoint, recipe, folder)
        on_stage("export_llm", 2, 2, recipe.backend)
        builder = _run(config, recipe, folder)
        made = Path(builder.get_saved_pte_filename())
        shutil.move(made if made.is_absolute() else folder / made, program)
        delegation = _delegation(builder)
    return (
        delegation,
        unquantised(checkpoint.config, recipe),
        export_warnings(checkpoint.config, recipe),
    )


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `model.pth` and `params.json` as stock's Llama reads them."""
    config = checkpoint.config
    read = tied_reader(config, checkpoint.tensor)
    names = [*outer_tensors(config), "output.weight"]
    for layer in range(config.layers):
        names += layer_tensors(config, layer)
    tensors = {_stock_name(name): read(name).clone() for name in dict.fromkeys(names)}
    torch.save(tensors, folder / "model.pth")
    (folder / "params.json").write_text(json.dumps(stock_params(config)))


def _stock_name(name: str) -> str:
    """Stock has names of its own for the norms of single heads."""
    return name.replace("attention.q_norm.", "attention.q_norm_fn.").replace(
        "attention.k_norm.", "attention.k_norm_fn."
    )


def stock_params(config: ModelConfig) -> dict[str, Any]:
    """Content of params.json for stock's ModelArgs."""
    params: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "n_kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_dim": config.hidden,
        "vocab_size": config.vocab,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_hf_rope": config.rope_pairing == "half",
        "attention_qkv_bias": config.qkv_bias,
        "use_qk_norm": config.qk_norm,
        "qk_norm_before_rope": config.qk_norm,
    }
    scaling = config.rope_scaling
    if isinstance(scaling, RopeScaling):
        params |= {"use_scaled_rope": True, "rope_scale_factor": scaling.factor}
        params["high_freq_factor"] = scaling.high_freq_factor
    return params


def stock_keys(checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """LlmConfig keys of a recipe, its own options last."""
    tokenizer, scaling = checkpoint.tokenizer, checkpoint.config.rope_scaling
    metadata: dict[str, Any] = {"get_eos_ids": list(tokenizer.stop_ids)}
    if tokenizer.bos_id is not None:
        metadata["get_bos_id"] = tokenizer.bos_id
    small = isinstance(scaling, RopeScaling) and scaling.factor >= 32
    keys: dict[str, Any] = {
        "base.model_class": "llama3_2" if small else "llama3_1" if scaling else "llama2",
        "base.checkpoint": str(folder / "model.pth"),
        "base.params": str(folder / "params.json"),
        "base.metadata": json.dumps(metadata),
        "model.use_kv_cache": True,
        "model.use_sdpa_with_kv_cache": recipe.custom_sdpa,
        "model.quantize_kv_cache": recipe.quantised_kv_cache,
        "model.enable_dynamic_shape": recipe.dynamic_shape,
        "export.max_seq_length": recipe.max_seq,
        "export.max_context_length": recipe.max_context,
        "export.output_dir": str(folder),
        "export.output_name": "stock.pte",
        "backend.xnnpack.enabled": recipe.backend == "xnnpack",
        "backend.xnnpack.extended_ops": recipe.backend == "xnnpack",
        # HQQ costs a minute and was not asked for; an option may ask.
        "quantization.use_hqq": False,
    }
    if recipe.backend not in ("xnnpack", "portable"):
        keys[f"backend.{recipe.backend}.enabled"] = True
    if recipe.linear != "none":
        keys["quantization.qmode"] = recipe.linear
    if recipe.group_size is not None:
        keys["quantization.group_size"] = recipe.group_size
    if recipe.embedding_bits is not None:
        keys["quantization.embedding_quantize"] = (
            f"{recipe.embedding_bits},{recipe.embedding_group}"
        )
    return keys | dict(recipe.options)


def stock_config(checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Any:
    """Build stock's LlmConfig.

    Raises:
        ConfigError: An unknown key, or a value of the wrong kind.
    """
    from executorch.extension.llm.export.config.llm_config import LlmConfig
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    settings = OmegaConf.structured(LlmConfig)
    for key, value in stock_keys(checkpoint, recipe, folder).items():
        try:
            OmegaConf.update(settings, key, value, merge=False)
        except (OmegaConfBaseException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"recipe {recipe.name}: LlmConfig takes no {key}={value}: {reason}", key=key
            ) from error
    try:
        return OmegaConf.to_object(settings)
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"recipe {recipe.name}: {reason}") from error


def _run(config: Any, recipe: Recipe, folder: Path) -> Any:
    """Run stock's exporter; its builder knows what was delegated."""
    compiler = _COMPILERS.get(recipe.backend, "its compiler")
    try:
        from executorch.examples.models.llama import export_llama_lib

        with contextlib.chdir(folder):
            return export_llama_lib._export_llama(config)
    except (ImportError, FileNotFoundError) as error:
        raise ExportError(
            f"recipe {recipe.name}: {recipe.backend} needs {compiler}, which isn't here ({error})",
            stage="export_llm",
            recipe=recipe.name,
        ) from error
    except Exception as error:  # stock raises bare exceptions and assertions of every kind
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        hint = f"; {recipe.backend} needs {compiler}" if recipe.backend in _COMPILERS else ""
        kind = type(error).__name__
        raise ExportError(
            f"recipe {recipe.name}: stock export_llm failed ({kind}): {reason}{hint}",
            stage="export_llm",
            recipe=recipe.name,
        ) from error


def _delegation(builder: Any) -> Delegation:
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(builder.edge_manager.exported_program().graph_module)
    inside, outside = int(info.num_delegated_nodes), int(info.num_non_delegated_nodes)
    return Delegation(delegated=inside, total=inside + outside)


def unquantised(config: ModelConfig, recipe: Recipe) -> tuple[str, ...]:
    """Linears whose rows don't divide into the recipe's groups: stock skips them silently."""
    if recipe.linear not in ("8da4w", "4w"):
        return ()
    form = LinearFormat(bits=4, group=recipe.group_size or 128, dynamic=recipe.linear == "8da4w")
    return tuple(_too_narrow(config, form))


def _too_narrow(config: ModelConfig, form: LinearFormat) -> Iterator[str]:
    for layer in range(config.layers):
        for name, shape in layer_tensors(config, layer).items():
            if len(shape) == 2 and not form.fits(shape[1]):
                yield name.removesuffix(".weight")
    if not form.fits(config.dim):
        yield "output"
