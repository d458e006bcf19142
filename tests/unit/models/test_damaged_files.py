"""Headers and lists that contradict themselves: refused with the file, never read as others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest

from farm.core.errors import ExportError
from models.sources.gguf import GgufCheckpoint
from models.sources.hf_config import read_config
from tests.unit.models.test_gguf_refusals import fields, rebuilt
from tests.unit.models.test_sources import HF_CONFIG, hf, opened, write_gguf

__all__ = ["hf"]


def test_tensors_that_begin_inside_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    data, name = bytearray(path.read_bytes()), b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8 + 4
    (offset,) = struct.unpack_from("<Q", data, at)
    struct.pack_into("<Q", data, at, offset - 256)
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"model\.gguf: tensor blk\.0\.ffn_down\.weight begins"):
        GgufCheckpoint(path, tmp_path)


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", numpy.ones((8, 64), "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ExportError, match=r"model\.gguf: written for machines of another byte"):
        GgufCheckpoint(path, tmp_path)


def test_text_of_a_gguf_that_is_no_utf_8_names_its_key(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<|bos|>", b"\xff|bos|>", 1))
    with pytest.raises(ExportError, match=r"model\.gguf: metadata key tokenizer\.ggml\.tokens: "):
        GgufCheckpoint(path, tmp_path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tokens": [1, 2, 3, 4, 5]}, r"ggml\.tokens isn't a list of str"),
        ({"tokens": "<s>"}, r"ggml\.tokens isn't a list of str"),
        ({"token_type": ["a"] * 5}, r"ggml\.token_type isn't a list of int"),
        ({"merges": [1]}, r"ggml\.merges isn't a list of str"),
        ({"model": "llama", "scores": ["0"] * 5}, r"ggml\.scores isn't a list of int or float"),
        ({"eos_token_id": "1"}, r"ggml\.eos_token_id is '1'"),
        ({"bos_token_id": -1}, r"ggml\.bos_token_id is -1"),
    ],
)
def test_lists_of_another_kind_are_refused(
    more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=words) as refused:
        rebuilt(fields(**more), tmp_path / "model.gguf")
    assert str(tmp_path / "model.gguf") in refused.value.message


@pytest.mark.parametrize(
    "change", [{"shape": [64]}, {"shape": [256, 2]}, {"dtype": "F16"}, {"shape": [-16, -16]}]
)
def test_sizes_that_contradict_shapes_are_refused(
    change: dict[str, Any], hf: Path, tmp_path: Path
) -> None:
    path = hf / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["model.norm.weight"] |= change
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    if change == {"shape": [-16, -16]}:
        words = "its config says"
    else:
        words = r"model\.safetensors: tensor model\.norm\.weight: damaged header"
    with pytest.raises(ExportError, match=words):
        opened("hf", hf, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_numbers_that_no_model_has_are_refused(key: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(HF_CONFIG | {key: value}))
    with pytest.raises(ExportError, match=rf"config\.json: (rms_)?{key.removeprefix('rms_')} is"):
        read_config(path)
