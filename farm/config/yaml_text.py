"""YAML as its own rules want it: a key that stands twice is a mistake, not the last one's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from farm.core.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"


def read_value(text: str, source: str) -> Any:
    """Read one document as plain data.

    Args:
        text: YAML.
        source: What errors name: a file, an option.

    Raises:
        ConfigError: It is none, or a key stands in it twice; PyYAML would take the last.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        for key, first, again in () if node is None else _twice(node, (), set()):
            raise ConfigError(
                f"{source}: {key}: stands there twice, on lines {first} and {again}; leave one",
                file=source,
                key=key,
            )
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 13th month of a date
        detail = " ".join(str(error).split())
        raise ConfigError(f"{source}: is not YAML: {detail}", file=source) from error
    finally:
        loader.dispose()


def _twice(node: yaml.Node, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, int, int]]:
    """Keys below a node that stand twice in their mapping, and both lines.

    An anchor may lead to its own parents; what was `seen` is passed over.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield from _twice(item, (*at, str(place)), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if key.tag != _MERGE:
            if name in lines:
                yield ".".join((*at, name)), lines[name], line
            lines[name] = line
        yield from _twice(value, (*at, name), seen)
