"""Known-good checkpoints, changed in one place each: none of the changes is read past."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from safetensors.numpy import load_file, save_file

from farm.core.errors import ExportError
from models.sources import gguf_keys, hf_keys, meta_keys
from models.sources.gguf import GgufCheckpoint
from models.sources.hf_config import read_config
from models.sources.hf_families import FAMILIES
from models.sources.meta import refuse_unknown_keys
from tests.unit.models import published_configs, published_families
from tests.unit.models.test_sources import hf, opened, write_gguf

__all__ = ["hf"]

FAMILY_CONFIGS = published_configs.PUBLISHED | published_families.PUBLISHED


def changed(allowed: tuple[Any, ...]) -> Iterator[Any]:
    """Values that a key may not have: of each usual kind one."""
    for value in (True, False, 7, 0.37, "other", [1], {"a": 1}):
        if not any(type(value) is type(item) and value == item for item in allowed):
            yield value


def outcome(path: Path) -> str:
    """What a refusal says without the file's name; empty where there is none."""
    try:
        read_config(path)
    except ExportError as error:
        where, _, words = error.message.partition(": ")
        return words if where == str(path) else f"another file is named: {where}"
    return ""


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_every_key_that_changes_the_maths_is_refused_in_every_family(
    name: str, tmp_path: Path
) -> None:
    data = FAMILY_CONFIGS[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    assert outcome(path) == "", "the config itself is good"
    family = FAMILIES[str(data["model_type"])]
    own = family.keys | family.scales.keys()
    mutations = 0
    for key, (allowed, _effect) in hf_keys.NEUTRAL.items():
        if key in own or key in data:
            continue
        for value in changed(family.neutral.get(key, allowed)):
            path.write_text(json.dumps(data | {key: value}))
            assert key in outcome(path), (key, value)
            mutations += 1
    for key in ("mystery", "attention_temperature", *hf_keys.QUANTISED):
        path.write_text(json.dumps(data | {key: {"x": 1}}))
        assert key in outcome(path)
    assert mutations > 100


def test_every_tensor_that_is_renamed_or_gets_a_scale_is_noticed(hf: Path, tmp_path: Path) -> None:
    path = hf / "model.safetensors"
    good = load_file(path)
    opened("hf", hf, tmp_path)
    one = numpy.ones(1, "f4")
    for name in good:
        rest = {other: value for other, value in good.items() if other != name}
        for mutation in (
            rest,
            rest | {name.replace("weight", "weight_packed"): good[name]},
            rest | {name.replace("model.", "model.model."): good[name]},
            rest | {name: good[name].astype("i1")},
            rest | {name: good[name].T[:-1].copy()},
            good | {name.replace("weight", "weight_scale"): one},
            good | {name.replace("weight", "weight_scale_inv"): one},
            good | {name.replace("weight", "bias"): one},
            good | {f"base_model.model.{name}": good[name]},
        ):
            save_file(mutation, path)
            with pytest.raises(ExportError):
                opened("hf", hf, tmp_path)
    save_file(good, path)
    opened("hf", hf, tmp_path)


def test_every_key_of_meta_and_gguf_that_changes_the_maths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    for key, (allowed, _effect) in meta_keys.NEUTRAL.items():
        for value in changed(allowed):
            with pytest.raises(ExportError, match=key):
                refuse_unknown_keys({key: value}, path)
    file = tmp_path / "model.gguf"
    for key in gguf_keys.NEUTRAL:

        def add(writer: gguf.GGUFWriter, name: str = f"llama.{key}") -> None:
            writer.add_float32(name, 0.37)

        write_gguf(file, change=add)
        with pytest.raises(ExportError, match=key):
            GgufCheckpoint(file, tmp_path)
