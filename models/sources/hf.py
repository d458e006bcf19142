"""Checkpoints of the model hub's format: config.json and safetensors, from a folder or the hub."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig
from models.sources.files import check_finite, is_hub_name, source_file
from models.sources.hf_config import ReadConfig, read_config
from models.sources.hf_families import Family
from models.sources.hf_scales import check_scaled, scaled
from models.sources.lora import Adapter, Target, refuse_beside
from models.sources.safetensors_files import (
    Stored,
    load_tensor,
    read_header,
    same_bytes,
    weight_files,
)
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

_OUTER = {"embed_tokens": "tok_embeddings", "norm": "norm"}

#: Tables of rotations that old versions stored: transformers leaves them out by this pattern too.
_HARMLESS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a canonical tensor is: rows of a stored one, all of them where there is one part."""

    info: Stored
    rows: tuple[int, int] | None = None
    #: What its numbers are multiplied by; None where they are meant as they are.
    scale: Stored | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.rows is None:
            return self.info.shape
        return (self.rows[1] - self.rows[0], *self.info.shape[1:])


def canonical_names(name: str, family: Family) -> tuple[str, ...]:
    """Canonical names of what a hub tensor holds, in rows one after another; none if unknown."""
    if name == "lm_head.weight":
        return ("output.weight",)
    stem, _, kind = name.removeprefix("model.").rpartition(".")
    if stem.startswith("layers."):
        layer, _, rest = stem.removeprefix("layers.").partition(".")
        return tuple(f"layers.{layer}.{one}.{kind}" for one in family.tensors.get(rest, ()))
    return (f"{_OUTER[stem]}.{kind}",) if stem in _OUTER else ()


class HfCheckpoint:
    """A folder with config.json and safetensors; tensors are mapped, not loaded."""

    def __init__(
        self, folder: Path, tokenizer: Path | None, cache: Path, adapter: Path | None = None
    ) -> None:
        self.folder = folder
        refuse_beside(folder)
        read = read_config(folder / "config.json")
        weights, notes = weight_files(folder)
        self._family = read.family
        self._scheme = read.scheme
        self._where = _by_canonical_name(weights, read)
        self.config, more = _resolve_tied(read.config, self._where, folder)
        wanted = wanted_tensors(self.config)
        unknown = [place.info for name, place in self._where.items() if name not in wanted]
        if unknown:
            refuse_unknown([info.name for info in unknown], unknown[0].path)
        for place in self._where.values():
            check_scaled(place.info, place.scale, read.scheme)
        check_tensors(self.config, {name: p.shape for name, p in self._where.items()}, folder)
        self.adapter = None if adapter is None else _adapted(adapter, self._where)
        #: The file that a config gives in place of the folder's own.
        self.given_tokenizer = tokenizer
        path = tokenizer or find_tokenizer(folder)
        self.tokenizer: TokenizerData = read_tokenizer_file(path, read.eos_ids)
        check_vocabulary(self.tokenizer, self.config.vocab, path)
        if adapter is not None:
            more += _other_tokenizer(adapter, path)
        self.notes = read.notes + notes + more + self.tokenizer.notes
        # config.json decides stop ids where generation_config.json has none.
        used = (*weights, folder / "config.json", path, *rule_files(path))
        added = () if self.adapter is None else self.adapter.files
        self._used = list(dict.fromkeys((*used, *added)))
        self._cache = cache

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return tuple(source_file(path, self._cache) for path in self._used)

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor, in the dtype it is stored in.

        Norms that are stored from zero are float32, and weights that have scales or an adapter.

        Raises:
            ExportError: The model has none of that name, or the file is damaged.
        """
        place = self._where.get(name)
        if place is None:
            raise ExportError(f"{self.folder}: no tensor {name}")
        info, found = place.info, load_tensor(place.info, place.rows)
        if place.scale is not None and self._scheme is not None:
            found = scaled(found, load_tensor(place.scale), self._scheme)
        found = check_finite(found, info.name, info.path)
        if self._family.norms_from_zero and name.endswith("norm.weight"):
            return found.float() + 1.0
        added = None if self.adapter is None else self.adapter.added(name)
        return found if added is None else found.float() + added


def _adapted(folder: Path, where: dict[str, _Place]) -> Adapter:
    targets: dict[str, list[Target]] = {}
    shapes = {}
    for name, place in where.items():
        stem = place.info.name.removeprefix("model.").removesuffix(".weight")
        targets.setdefault(stem, []).append(Target(name, place.rows))
        # A row of the embedding is looked up: peft has another product for it. A norm has none.
        if name != "tok_embeddings.weight" and len(place.info.shape) == 2:
            shapes[stem] = place.info.shape
    return Adapter(folder, targets, shapes)


def _other_tokenizer(adapter: Path, used: Path) -> tuple[str, ...]:
    """A note where an adapter comes with a tokenizer or chat format other than the one in use."""
    names = [name for name in (*TOKENIZER_NAMES, *RULE_NAMES) if (adapter / name).is_file()]
    others = [name for name in names if not _same_file(adapter / name, used.parent / name)]
    if not others:
        return ()
    return (
        f"{adapter}: {', '.join(others)} differ from those beside {used}, which are used; for a"
        " tokenizer of the adapter's own give its file as `tokenizer`",
    )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return other.is_file() and one.read_bytes() == other.read_bytes()
    except OSError as error:
        raise ExportError(f"can't read {error.filename}: {error.strerror}") from error


def _by_canonical_name(weights: list[Path], read: ReadConfig) -> dict[str, _Place]:
    """Tensors of all files by canonical name, each with its scales.

    Raises:
        ExportError: One isn't part of any supported model, or is there twice.
    """
    found: dict[str, _Place] = {}
    scales: dict[str, Stored] = {}
    family, wanted = read.family, wanted_tensors(read.config)
    for path in weights:
        header = read_header(path)
        if read.scheme is not None:
            suffix = f".weight{read.scheme.suffix}"
            for name in [name for name in header if name.endswith(suffix)]:
                scales[name.removesuffix(read.scheme.suffix)] = header.pop(name)
        unknown = [name for name in header if not canonical_names(name, family)]
        refuse_unknown([name for name in unknown if not _HARMLESS.search(name)], path)
        for name, info in header.items():
            parts = canonical_names(name, family)
            for part, place in zip(parts, _places(info, parts, wanted), strict=True):
                if part in found:
                    other = found[part].info.path.name
                    raise ExportError(f"{path}: tensor {name} is there twice, in {other} too")
                found[part] = place
    for part, place in found.items():
        scale = scales.pop(place.info.name, None) if place.rows is None else None
        found[part] = replace(place, scale=scale)
    if scales:
        left = next(iter(scales.values()))
        refuse_unknown([scale.name for scale in scales.values()], left.path)
    return found


def _places(
    info: Stored, parts: tuple[str, ...], wanted: dict[str, tuple[int, ...]]
) -> list[_Place]:
    """Split a stored matrix into its parts, as many rows each as the config says."""
    if len(parts) < 2:
        return [_Place(info) for _ in parts]
    unknown = [part for part in parts if part not in wanted]
    if unknown:
        refuse_unknown([info.name], info.path)
    ends = list(itertools.accumulate((wanted[part][0] for part in parts), initial=0))
    if len(info.shape) != 2 or info.shape[0] != ends[-1]:
        raise ExportError(
            f"{info.path}: tensor {info.name} has shape {list(info.shape)}, its config says"
            f" {ends[-1]} rows: {', '.join(str(wanted[part][0]) for part in parts)} of"
            f" {len(parts)} projections"
        )
    return [_Place(info, rows) for rows in itertools.pairwise(ends)]


def _resolve_tied(
    config: ModelConfig, where: dict[str, _Place], folder: Path
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
    if same_bytes(table.info, output.info):
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
    adapter = Path(source.adapter).expanduser() if source.adapter else None
    return HfCheckpoint(folder, tokenizer, cache, adapter)


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
