"""What can be said about an export before minutes are spent: refusals and warnings. No torch."""

from __future__ import annotations

from dataclasses import fields

from farm.core.artifact import Recipe
from farm.core.errors import ExportError
from models.checkpoint import LINEARS
from models.config import ModelConfig, YarnScaling

#: What of a model `stock_params` can't say, by its name in ModelConfig.
_NOT_IN_STOCK = (
    "qk_norm_whole",
    "rope_scale",
    "rotary_dim",
    "local_rope_theta",
    "unrotated",
    "windowed",
    "activation",
    "pre_norm",
    "post_norm",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "attention_scale",
    "score_cap",
    "logit_cap",
)
_DEFAULTS = {field.name: field.default for field in fields(ModelConfig)}
_RECIPE_DEFAULTS = {field.name: field.default for field in fields(Recipe)}


def check_recipe(config: ModelConfig, recipe: Recipe) -> None:
    """Refuse a recipe that can't work on this model.

    Raises:
        ExportError: Says which field is wrong and what is allowed.
    """
    if recipe.engine == "none":
        return
    if recipe.engine == "farm":
        _check_engine(recipe)
        _check_quality(config, recipe)
        if recipe.quantised_kv_cache and config.score_cap:
            raise _refused(
                recipe,
                "a quantised KV cache is read by ExecuTorch's fused attention, which has no soft"
                f" cap of scores, as this {config.architecture} has",
            )
        if recipe.embedding_group and config.dim % recipe.embedding_group:
            raise _refused(
                recipe,
                f"embedding_group {recipe.embedding_group} doesn't divide the model's width"
                f" {config.dim}",
            )
    else:
        _check_stock(config, recipe)
    if recipe.max_context > config.max_context:
        raise _refused(
            recipe,
            f"max_context is {recipe.max_context}, the model was made for {config.max_context}",
        )
    if not 0 < recipe.max_seq <= recipe.max_context:
        raise _refused(
            recipe,
            f"max_seq is {recipe.max_seq}; it has to be between 1 and max_context"
            f" ({recipe.max_context})",
        )
    if recipe.group_size and recipe.linear in ("4w", "8da4w"):
        _check_groups(config, recipe, recipe.group_size)


def _check_quality(config: ModelConfig, recipe: Recipe) -> None:
    """Refuse ways to keep quality that don't go with the rest of the recipe."""
    if recipe.scales == "hqq" and recipe.linear != "8da4w":
        raise _refused(
            recipe, f"scales hqq are of 4-bit groups (linear 8da4w), not of {recipe.linear}"
        )
    for key, value in (("output_bits", recipe.output_bits), ("wide", ", ".join(recipe.wide))):
        if value and recipe.linear not in ("8da4w", "4w"):
            raise _refused(
                recipe,
                f"{key} {value} is for recipes whose Linears have 4 bits, not for linear"
                f" {recipe.linear}",
            )
    layers = [f"layers.{layer}" for layer in range(config.layers)]
    known = {"output", *LINEARS, *layers, *(f"{a}.{b}" for a in layers for b in LINEARS)}
    for name in recipe.wide:
        if name not in known:
            raise _refused(
                recipe,
                f"wide: this model has no Linears {name!r}; `output`, `{LINEARS[0]}` (of every"
                f" layer), `layers.0` (all of one) and `layers.0.{LINEARS[0]}` are such names, with"
                f" layers up to {config.layers - 1} and {', '.join(LINEARS)}",
            )
    if recipe.rotated and (config.post_norm or not config.pre_norm):
        raise _refused(
            recipe,
            f"rotated: {config.architecture} normalises what its blocks add, with weights that no"
            " projection can take up",
        )


def _check_engine(recipe: Recipe) -> None:
    if recipe.backend not in ("xnnpack", "portable"):
        raise _refused(
            recipe,
            f"engine farm lowers to xnnpack and portable, not to {recipe.backend};"
            " set `engine: stock`",
        )
    if recipe.backend == "portable" and recipe.linear != "none":
        raise _refused(
            recipe,
            f"the portable kernels have no {recipe.linear} Linear; use linear none or xnnpack",
        )
    if recipe.quantised_kv_cache and not recipe.custom_sdpa:
        raise _refused(recipe, "a quantised KV cache needs custom_sdpa")


def _check_stock(config: ModelConfig, recipe: Recipe) -> None:
    """Refuse what stock's Llama can't be told: it would leave it out and export another model."""
    if recipe.external_weights:
        raise _refused(recipe, "external_weights needs `engine: farm`")
    for field in ("scales", "output_bits", "wide", "rotated"):
        if getattr(recipe, field) != _RECIPE_DEFAULTS[field]:
            raise _refused(recipe, f"{field} needs `engine: farm`")
    use = "; use `engine: farm`"
    for name in _NOT_IN_STOCK:
        value = getattr(config, name)
        seen = name == "windowed" and config.window >= recipe.max_context
        if value != _DEFAULTS[name] and not seen:
            raise _refused(
                recipe, f"engine stock has no key for this model's {name} ({value!r}){use}"
            )
    if config.rope_factors:
        raise _refused(
            recipe,
            "engine stock has no key for this model's RoPE factors (linear scaling, or the"
            f" rope_freqs of a Llama 3 GGUF){use}",
        )
    scaling = config.rope_scaling
    if scaling is None:
        return
    if isinstance(scaling, YarnScaling):
        raise _refused(recipe, f"engine stock has no RoPE of type yarn{use}")
    if config.rope_pairing == "half":
        raise _refused(
            recipe, f"engine stock has no scaled RoPE for checkpoints of the hub's format{use}"
        )
    if (scaling.low_freq_factor, scaling.original_context) != (1.0, 8192):
        raise _refused(
            recipe,
            f"engine stock scales RoPE from 8192 tokens and low_freq_factor 1, this model from"
            f" {scaling.original_context} and {scaling.low_freq_factor:g}{use}",
        )


def _refused(recipe: Recipe, text: str) -> ExportError:
    return ExportError(f"recipe {recipe.name}: {text}", stage="check", recipe=recipe.name)


def _check_groups(config: ModelConfig, recipe: Recipe, group: int) -> None:
    widths = {"dim": config.dim, "hidden": config.hidden}
    widths["heads x head_dim"] = config.heads * config.head_dim
    if all(width % group for width in widths.values()):
        names = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise _refused(recipe, f"group_size {group} divides none of the model's widths ({names})")


def stores_tied_twice(config: ModelConfig, recipe: Recipe) -> bool:
    """Whether embedding and output, one matrix in the checkpoint, become two in the artifact.

    Equal bytes are kept once among a program's constants and in a file of weights; the constants
    of delegates inside a program are apart from its own.
    """
    equal = recipe.linear == "none" and recipe.embedding_bits is None
    shared = recipe.backend == "portable" or recipe.external_weights
    kept = equal and shared and recipe.engine == "farm" and not recipe.rotated
    return config.tied and not kept


def fused_attention(config: ModelConfig, recipe: Recipe) -> bool:
    """Whether attention is ExecuTorch's fused operator, which has no soft cap of scores."""
    return recipe.custom_sdpa and not config.score_cap


def export_warnings(config: ModelConfig, recipe: Recipe) -> tuple[str, ...]:
    """What a user should know about an artifact that nevertheless is made."""
    found = []
    if stores_tied_twice(config, recipe):
        output = "fp32" if recipe.linear == "none" else recipe.linear
        table = f"{recipe.embedding_bits} bit" if recipe.embedding_bits else "fp32"
        found.append(
            f"tied weights are stored twice: embedding in {table} and output in {output}, each of"
            f" {config.vocab} x {config.dim}"
        )
    if recipe.engine == "farm" and recipe.custom_sdpa and not fused_attention(config, recipe):
        found.append(
            "attention is made of plain operators, which are slower: ExecuTorch's fused attention"
            " has no soft cap of scores"
        )
    if recipe.max_context < config.max_context:
        found.append(
            f"context is limited to {recipe.max_context} of the model's {config.max_context} tokens"
        )
    return tuple(found)
