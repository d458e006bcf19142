"""Writes docs/reference from the code: commands, run configs, inventories, report.json.

`make reference` runs it; `--check` says whether the pages are as the code is (exit code 1: no).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
#: Help must not depend on who makes the pages.
os.environ.pop("FARM_INVENTORY", None)
_NOTE = "<!-- Made by `make reference` from the code: edit that. -->\n\n"


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    from farm.config.inventory_schema import inventory_schema
    from farm.config.schema import run_schema
    from farm.reports.json import report_schema

    lines = {
        "cli.md": _commands(),
        "config.md": _schema("Run configs", "config", run_schema()),
        "inventory.md": _schema("Inventories", "inventory", inventory_schema()),
        "report.md": _schema("report.json", "report", report_schema()),
    }
    return {name: _NOTE + "\n".join(found) + "\n" for name, found in lines.items()}


def _commands() -> Iterator[str]:
    from typer.main import get_command

    from farm.cli.commands import app

    yield "# Commands\n"
    yield "A RUN is an id, `latest`, a folder or a [bundle](../bundles.md).\n"
    yield from _command("farm", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    yield f"## {name}\n"
    yield _paragraphs(command.help or "") + "\n"
    rows = [_parameter(one) for one in command.params if not getattr(one, "hidden", False)]
    if rows:
        yield "| argument or option | default | meaning |\n|---|---|---|"
        yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
        yield ""
    for child in inner:
        yield from _command(f"{name} {child}", inner[child])


def _parameter(one: Any) -> tuple[str, str, str]:
    if one.param_type_name == "argument":
        return f"`{one.name.strip('_').upper()}`", _default(one), one.help or ""
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    extra = f" Also `{one.envvar}` of the environment." if one.envvar else ""
    return names, _default(one), (one.help or "") + extra


def _default(one: Any) -> str:
    if one.required:
        return "required"
    value = one.default
    plain = value is not None and not callable(value) and value is not False and value != ""
    return f"`{value}`" if plain else ""


def _schema(title: str, name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"# {title}\n"
    yield f"`farm schema {name}` prints the JSON Schema, for an editor that completes and checks.\n"
    yield from _object(schema)
    for inner, definition in sorted(schema.get("$defs", {}).items()):
        if "properties" in definition:
            yield f"## {inner}\n"
            yield from _object(definition)


def _object(schema: dict[str, Any]) -> Iterator[str]:
    if text := schema.get("description"):
        yield _paragraphs(text) + "\n"
    required = set(schema.get("required", ()))
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, value in schema["properties"].items():
        default = "required" if key in required and "default" not in value else _json(value)
        row = (f"`{key}`", _type(value), default, value.get("description", ""))
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for many in ("anyOf", "oneOf", "allOf"):
        if many in value:
            return " or ".join(dict.fromkeys(_type(one) for one in value[many]))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object" and isinstance(inner := value.get("additionalProperties"), dict):
        return f"map of names to {_type(inner)}"
    return str(kind)


def _json(value: dict[str, Any]) -> str:
    default = value.get("default")
    plain = default not in (None, [], "") and not isinstance(default, dict)
    return f"`{default}`" if plain else ""


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main() -> int:
    """Write the pages, or with --check compare them."""
    made = pages()
    stale = [
        name
        for name, text in made.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.stdout.write(f"not as the code is: {', '.join(stale)}; run `make reference`\n")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(made[name], encoding="utf-8")
    sys.stdout.write(f"docs/reference: {len(made)} pages, {len(stale)} changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
