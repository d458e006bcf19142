"""Checkpoints of the model hub's format: config.json and safetensors, from a folder or the hub."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig
from models.sources.files import check_finite, is_hub_name, source_file
from models.sources.hf_config import read_config, refuse_adapter
from models.sources.safetensors_files import DTYPES, Stored, read_header, same_bytes, weight_files
from models.sources.shapes import (
    check_tensors,
    check_vocabulary,
    refuse_unknown,
    wanted_tensors,
)
from models.sources.tokenizer_files import (
    RULE_NAMES,
    TOKENIZER_NAMES,
    find_tokenizer,
    read_tokenizer_file,
    rule_files,
)

if TYPE_CHECKING:
    import torch

_LAYER = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm",
    "self_attn.k_norm": "attention.k_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
_OUTER = {"embed_tokens": "tok_embeddings", "norm": "norm"}

#: Tables of rotations that old versions stored: transformers leaves them out by this pattern too.
_HARMLESS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


def canonical_name(name: str) -> str | None:
    """Canonical name of a hub tensor; None for one that no supported model uses."""
    if name == "lm_head.weight":
        return "output.weight"
    stem, _, kind = name.removeprefix("model.").rpartition(".")
    if stem.startswith("layers."):
        layer, _, rest = stem.removeprefix("layers.").partition(".")
        return f"layers.{layer}.{_LAYER[rest]}.{kind}" if rest in _LAYER else None
    return f"{_OUTER[stem]}.{kind}" if stem in _OUTER else None


class HfCheckpoint:
    """A folder with config.json and safetensors; tensors are mapped, not loaded."""

    def __init__(self, folder: Path, tokenizer: Path | None, cache: Path) -> None:
        self.folder = folder
        refuse_adapter(folder)
        read = read_config(folder / "config.json")
        weights, notes = weight_files(folder)
        self._where = _by_canonical_name(weights)
        self.config, more = _resolve_tied(read.config, self._where, folder)
        wanted = wanted_tensors(self.config)
        unknown = [info for name, info in self._where.items() if name not in wanted]
        if unknown:
            refuse_unknown([info.name for info in unknown], unknown[0].path)
        for info in self._where.values():
            if info.dtype not in DTYPES:
                raise ExportError(
                    f"{info.path}: tensor {info.name} is {info.dtype}; only"
                    f" {', '.join(sorted(DTYPES))} are read. Dequantise the weights and save them"
                )
        check_tensors(self.config, {name: i.shape for name, i in self._where.items()}, folder)
        path = tokenizer or find_tokenizer(folder)
        self.tokenizer: TokenizerData = read_tokenizer_file(path, read.eos_ids)
        check_vocabulary(self.tokenizer, self.config, path)
        self.notes = read.notes + notes + more + self.tokenizer.notes
        # config.json decides stop ids where generation_config.json has none.
        self._used = [*weights, folder / "config.json", path, *rule_files(path)]
        self._cache = cache

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return tuple(source_file(path, self._cache) for path in self._used)

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor, in the dtype it is stored in.

        Raises:
            ExportError: The model has none of that name, or the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        info = self._where.get(name)
        if info is None:
            raise ExportError(f"{self.folder}: no tensor {name}")
        try:
            with safe_open(info.path, framework="pt") as opened:
                found: torch.Tensor = opened.get_tensor(info.name)
        except (SafetensorError, OSError) as error:
            raise ExportError(f"{info.path}: damaged ({error}); fetch it again") from error
        return check_finite(found, info.name, info.path)


def _by_canonical_name(weights: list[Path]) -> dict[str, Stored]:
    """Tensors of all files by canonical name.

    Raises:
        ExportError: One isn't part of any supported model, or is there twice.
    """
    found: dict[str, Stored] = {}
    for path in weights:
        header = read_header(path)
        unknown = [name for name in header if canonical_name(name) is None]
        refuse_unknown([name for name in unknown if not _HARMLESS.search(name)], path)
        for name, info in header.items():
            canonical = canonical_name(name)
            if canonical is None:
                continue
            if canonical in found:
                raise ExportError(
                    f"{path}: tensor {name} is there twice, in {found[canonical].path.name} too"
                )
            found[canonical] = info
    return found


def _resolve_tied(
    config: ModelConfig, where: dict[str, Stored], folder: Path
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Do what transformers does where `tie_word_embeddings` and the stored tensors disagree."""
    table, output = where.get("tok_embeddings.weight"), where.get("output.weight")
    if not config.tied:
        if output is None and table is not None:
            raise ExportError(
                f"{folder}: lm_head.weight is missing, and config.json has tie_word_embeddings"
                " false: without an output there are no logits. Set it to true if the output is"
                " the embedding"
            )
        return config, ()
    if output is None:
        return config, ()
    if table is None:
        where["tok_embeddings.weight"] = where.pop("output.weight")
        return config, ()
    if same_bytes(table, output):
        del where["output.weight"]
        return config, ()
    note = (
        f"{folder}: config.json has tie_word_embeddings true, but lm_head.weight and the embedding"
        " differ; both are used as they are, as transformers does"
    )
    return replace(config, tied=False), (note,)


def open_hf(source: ModelSource, cache: Path) -> HfCheckpoint:
    """Open a folder, or fetch a repository of the hub and open it.

    Raises:
        ExportError: It can't be fetched (the message says how to log in), or is damaged.
    """
    assert source.path is not None
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        if not is_hub_name(source):
            what = (
                f"{folder} is a file; give its folder" if folder.exists() else f"no folder {folder}"
            )
            raise ExportError(f"model {source.name}: {what}", model=source.name)
        folder = _fetch(source, cache)
    tokenizer = Path(source.tokenizer).expanduser() if source.tokenizer else None
    return HfCheckpoint(folder, tokenizer, cache)


def _fetch(source: ModelSource, cache: Path) -> Path:
    """Let the hub's own client download; it resumes and verifies."""
    name = str(source.path)
    import huggingface_hub
    from huggingface_hub import errors

    wanted = ["config.json", "adapter_config.json", "*.safetensors", "*.safetensors.index.json"]
    place = "log in with `hf auth login`, or put the files into a folder and give `hf: FOLDER`"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                allow_patterns=[*wanted, *TOKENIZER_NAMES, *RULE_NAMES],
                cache_dir=cache / "hub",
            )
        )
    except errors.GatedRepoError as error:
        raise ExportError(
            f"model {source.name}: {name} is gated; accept its licence on the hub, then {place}",
            model=source.name,
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ExportError(
            f"model {source.name}: the hub has no {name}, or it is private; {place}",
            model=source.name,
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            f"model {source.name}: can't fetch {name} from the hub ({reason}). Without network,"
            " put the files into a folder and give `hf: FOLDER`",
            model=source.name,
        ) from error
