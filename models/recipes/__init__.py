"""Built-in recipes: data, no code runs here."""

from __future__ import annotations

from farm.core.artifact import Recipe
from farm.core.errors import UnknownName
from farm.core.names import meant
from models.recipes.builtin import BUILTIN

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in BUILTIN}


def get(name: str) -> Recipe:
    """Look up a built-in recipe.

    Raises:
        UnknownName: There is none of that name; says which there are.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise UnknownName(
            f"no recipe {name!r}{meant(name, RECIPES)}; known are {', '.join(RECIPES)}",
            known=tuple(RECIPES),
        )
    return recipe
