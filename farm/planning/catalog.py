"""Names of a run config to what they mean: models, recipes, toolchains, runners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from farm.core.artifact import ModelSource, Recipe, Toolchain
from farm.core.errors import ConfigError, UnknownName
from farm.core.plan import Catalog
from farm.core.spec import RecipeChange, RunSpec
from farm.planning import runners
from models.exporting.memory import rough_export_bytes, source_parameters
from models.known import MODELS
from models.known import get as find_model
from models.recipes import RECIPES
from models.recipes import get as find_recipe
from models.toolchain import executorch_requirements

T = TypeVar("T")


def resolve_names(spec: RunSpec) -> Catalog:
    """Look up every name, and refuse what can't work before anything is spent.

    Raises:
        UnknownName: A name that nobody knows; names file, key and the known ones.
        ConfigError: A file that isn't there, or a workload that doesn't fit the recipe.
    """
    models: dict[str, ModelSource] = {}
    for index, source in enumerate(spec.models):
        key = f"models.{index}"
        if source.kind == "registry":
            _known(spec, key, find_model, source.name)
        else:
            _exists(spec, key, source)
        models[source.name] = source
    own = {change.name: _changed(spec, change) for change in spec.recipes}
    recipes: dict[str, Recipe] = {}
    for index, name in enumerate(spec.matrix.recipe):
        key = f"matrix.recipe.{index}"
        recipe = own[name] if name in own else _known(spec, key, find_recipe, name)
        _fits(spec, key, recipe)
        recipes[name] = recipe
    planted_recipe(spec)
    for toolchain in spec.toolchains:
        _installable(spec, toolchain)
    text = spec.correctness.text
    if text != "builtin" and not Path(text).is_file():
        key = "correctness.text"
        message = f"{spec.source}: {key}: there is no file {text}; or write `builtin`"
        raise ConfigError(message, file=spec.source, key=key)
    return Catalog(
        models,
        recipes,
        {toolchain.name: toolchain for toolchain in spec.toolchains},
        runners.resolve(spec),
        _export_bytes(models, recipes),
    )


def planted_recipe(spec: RunSpec) -> Recipe | None:
    """Return the recipe of the slower artifact that the gate is tried on; None: it isn't.

    Raises:
        UnknownName: Nobody knows it.
    """
    if spec.self_check is None:
        return None
    own = {change.name: change for change in spec.recipes}
    name = spec.self_check.slower
    if name in own:
        return _changed(spec, own[name])
    return _known(spec, "self_check.slower", find_recipe, name)


def _installable(spec: RunSpec, toolchain: Toolchain) -> None:
    """Refuse what pip could not even be asked for, and a checkout that isn't there."""
    if toolchain.executorch:
        try:
            executorch_requirements(toolchain)
        except ConfigError as error:
            key = f"toolchains.{toolchain.name}.executorch"
            raise ConfigError(
                f"{spec.source}: {key}: {error.message}", file=spec.source, key=key
            ) from None
    if toolchain.source and not (Path(toolchain.source) / "CMakeLists.txt").is_file():
        key = f"toolchains.{toolchain.name}.source"
        raise ConfigError(
            f"{spec.source}: {key}: {toolchain.source} is no checkout of ExecuTorch (no"
            " CMakeLists.txt)",
            file=spec.source,
            key=key,
        )


def _export_bytes(
    models: dict[str, ModelSource], recipes: dict[str, Recipe]
) -> dict[tuple[str, str], int]:
    weights = {name: source_parameters(source) for name, source in models.items()}
    return {
        (model, name): rough_export_bytes(parameters, recipe)
        for model, parameters in weights.items()
        for name, recipe in recipes.items()
        if parameters is not None
    }


def _changed(spec: RunSpec, change: RecipeChange) -> Recipe:
    key = f"recipes.{change.name}"
    if change.name in RECIPES:
        raise ConfigError(
            f"{spec.source}: {key}: is the name of a built-in recipe; give yours another",
            file=spec.source,
            key=key,
        )
    base = _known(spec, f"{key}.base", find_recipe, change.base)
    fields: dict[str, Any] = dict(change.fields)
    recipe = replace(base, name=change.name, **fields)
    if recipe.options and recipe.engine != "stock":
        raise ConfigError(
            f"{spec.source}: {key}.options: are for `engine: stock`", file=spec.source, key=key
        )
    return recipe


def _known(spec: RunSpec, key: str, find: Callable[[str], T], name: str) -> T:
    try:
        return find(name)
    except UnknownName as error:
        context = {**error.context, "file": spec.source, "key": key}
        raise UnknownName(f"{spec.source}: {key}: {error.message}", **context) from None


def _exists(spec: RunSpec, key: str, source: ModelSource) -> None:
    named = {source.kind: source.path, "tokenizer": source.tokenizer, "data": source.data}
    named["adapter"] = source.adapter
    for what, text in named.items():
        # An `hf` that is no local folder is a hub id: whether it exists is the hub's to say.
        hub_id = what == "hf" and text is not None and not text.startswith("/")
        if text is not None and not hub_id and not Path(text).exists():
            raise ConfigError(
                f"{spec.source}: {key}.{what}: there is no {text}", file=spec.source, key=key
            )


def _fits(spec: RunSpec, key: str, recipe: Recipe) -> None:
    """Refuse what reaches beyond the recipe's context: it would fail on every device."""
    workload, correctness = spec.workload, spec.correctness
    deepest = max(workload.depth, default=0)
    longest = deepest + max((*workload.prefill, *(n + 1 for n in workload.decode)), default=0)
    for what, needed in (("correctness.tokens", correctness.tokens), ("workload", longest)):
        if needed > recipe.max_context:
            raise ConfigError(
                f"{spec.source}: {what}: needs {needed} tokens of context, recipe {recipe.name}"
                f" ({key}) has {recipe.max_context}",
                file=spec.source,
                key=what,
            )


def model_rows() -> list[tuple[str, str, str, str]]:
    """Return name, parameters, source and note of every registered model."""
    return [
        (
            entry.name,
            f"{entry.parameters / 1e6:,.1f} M",
            "no hub needed" if entry.offline else "model hub",
            entry.summary,
        )
        for entry in MODELS.values()
    ]


def all_recipes() -> list[Recipe]:
    """Return every built-in recipe."""
    return list(RECIPES.values())
