"""What can be known to fail before a cluster starts or a device is asked: models and recipes.

Opens every model whose files are here, without hashing them. What has to be fetched first is
checked by its export.
"""

from __future__ import annotations

from pathlib import Path

from farm import paths
from farm.core.artifact import Recipe
from farm.core.errors import ConfigError, ExportError
from farm.core.plan import Catalog
from farm.core.spec import RunSpec
from farm.planning.catalog import planted_recipe
from models.config import ModelConfig
from models.lowering.checks import check_recipe
from models.sources import open_here
from models.sources.gguf_file import WholeGguf


def check_exports(spec: RunSpec, catalog: Catalog, home: Path) -> None:
    """Refuse models that can't be read, and recipes that can't work on them.

    Raises:
        ConfigError: Names file and key of everything that is wrong.
    """
    wrong: list[tuple[str, str]] = []
    for index, (name, source) in enumerate(catalog.models.items()):
        try:
            checkpoint = open_here(source, paths.model_cache(home), _only(spec, catalog, name))
        except (ConfigError, ExportError) as error:
            wrong.append((f"models.{index}", error.message))
            continue
        if checkpoint is not None and not isinstance(checkpoint, WholeGguf):
            wrong += _misfits(spec, catalog, name, checkpoint.config)
    if wrong:
        lines = [f"{spec.source}: {key}: {text}" for key, text in wrong]
        raise ConfigError("\n".join(lines), file=spec.source, key=wrong[0][0])


def _only(spec: RunSpec, catalog: Catalog, model: str) -> Recipe | None:
    """The recipe of a model that has one; None where it has several."""
    found = [one for one in catalog.recipes.values() if not _left_out(spec, model, one)]
    return found[0] if len(found) == 1 else None


def _misfits(
    spec: RunSpec, catalog: Catalog, model: str, config: ModelConfig
) -> list[tuple[str, str]]:
    found = []
    for index, recipe in enumerate(catalog.recipes.values()):
        if _left_out(spec, model, recipe):
            continue
        try:
            check_recipe(config, recipe)
        except ExportError as error:
            hint = f"leave it out with `exclude: [{{model: {model}, recipe: {recipe.name}}}]`"
            others = len(catalog.models) > 1 or len(catalog.recipes) > 1
            text = f"{error.message} (model {model})" + (f"; {hint}" if others else "")
            found.append((f"matrix.recipe.{index}", text))
    # Else the first night would end with a gate that could not be tried.
    if (planted := planted_recipe(spec)) is not None:
        try:
            check_recipe(config, planted)
        except ExportError as error:
            found.append(("self_check.slower", f"{error.message} (model {model})"))
    return found


def _left_out(spec: RunSpec, model: str, recipe: Recipe) -> bool:
    """Whether `exclude` leaves this model and recipe out whatever the other axes are."""
    fields = {"model": model, "recipe": recipe.name}
    return any(all(fields.get(key) == value for key, value in rule) for rule in spec.exclude)
