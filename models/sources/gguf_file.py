"""A GGUF file: metadata, tokenizer, and whether all of it is there. It knows no architecture."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf

from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.sources import gguf_keys
from models.sources.files import source_file
from models.sources.gguf_tokenizer import read_tokenizer, token_rules
from models.sources.shapes import check_vocabulary
from models.sources.tokenizer_files import read_tokenizer_file, rule_files


class GgufFile:
    """A memory-mapped GGUF with a tokenizer that is understood."""

    def __init__(self, path: Path, cache: Path, tokenizer: Path | None = None) -> None:
        self.path = path
        self._cache = cache
        self._reader = _opened(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = self._check_keys()
        self._check_size()
        #: The file that a config gives in place of what is inside.
        self.given_tokenizer = tokenizer
        self.tokenizer: TokenizerData = self._read_tokenizer(tokenizer)
        self.notes = self.tokenizer.notes
        self.vocab = int(self._tensors["token_embd.weight"].shape[1])
        check_vocabulary(self.tokenizer, self.vocab, tokenizer or path)

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        given = self.given_tokenizer
        paths = [self.path, *(() if given is None else (given, *rule_files(given)))]
        return tuple(source_file(path, self._cache) for path in paths)

    def field(self, key: str, default: Any = None) -> Any:
        """Value of a metadata key."""
        found = self._reader.fields.get(key)
        try:
            return default if found is None else found.contents()
        except UnicodeDecodeError as error:
            raise ExportError(f"{self.path}: metadata key {key}: not UTF-8: {error}") from error

    def _check_keys(self) -> str:
        """Refuse what is no whole model, or has a tokenizer that isn't understood."""
        kind = self.field("general.type", "model")
        if kind != "model":
            raise ExportError(f"{self.path}: general.type is {kind!r}, a whole model is expected")
        count = self.field("split.count", 1)
        if count not in (0, 1):
            raise ExportError(
                f"{self.path}: split.count: this is file {int(self.field('split.no', 0)) + 1} of"
                f" {count}; join them with `llama-gguf-split --merge` and give the whole"
            )
        for key in self._reader.fields:
            first, _, rest = key.partition(".")
            if first == "tokenizer":
                self._check_tokenizer_key(key, rest)
            elif first == "adapter":
                raise ExportError(f"{self.path}: {key}: an adapter; merge it into its base")
        return str(self.field("general.architecture"))

    def _check_tokenizer_key(self, key: str, name: str) -> None:
        if name in gguf_keys.TOKENIZER_USED or name in gguf_keys.TOKENIZER_HARMLESS:
            return
        if name.startswith("chat_template."):
            return
        if self.field(key) in gguf_keys.TOKENIZER_NEUTRAL.get(name, ()):
            return
        raise ExportError(
            f"{self.path}: metadata key {key}: farm doesn't know it, so which ids it would change"
            " is unknown. Give the model as a hub folder (hf:)"
        )

    def _read_tokenizer(self, given: Path | None) -> TokenizerData:
        """The file that a config gives wins; what it leaves open is taken from the GGUF."""
        if given is None:
            return read_tokenizer(self.field, self.path)
        inside = token_rules(self.field, self.path)
        found = read_tokenizer_file(given, inside.stop_ids or None)
        return replace(found, chat_template=found.chat_template or inside.chat_template)

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the metadata; an array with one for each layer counts when all are equal."""
        value = self.field(key, default)
        if value is None:
            raise ExportError(f"{self.path}: metadata key {key} is missing")
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise ExportError(
                    f"{self.path}: metadata key {key} is {str(value)[:80]}: layers of different"
                    " shapes aren't supported"
                )
            value = value[0]
        if isinstance(value, (bool, str)):
            raise ExportError(f"{self.path}: metadata key {key} is {value!r}, no number")
        return float(value)

    def _check_size(self) -> None:
        if "token_embd.weight" not in self._tensors:
            raise ExportError(f"{self.path}: no tensor token_embd.weight; this is no whole model")
        end, align = int(self._reader.data_offset), int(self._reader.alignment)
        for tensor in self._reader.tensors:
            # As llama.cpp has it: one after the other, or a tensor's bytes would be another's.
            if int(tensor.data_offset) != end:
                raise ExportError(
                    f"{self.path}: tensor {tensor.name} begins at byte {int(tensor.data_offset)},"
                    f" the one before it ends at {end}; the file is damaged, fetch it again"
                )
            end += -(-int(tensor.n_bytes) // align) * align
        # The last one may lack its padding.
        last = self._reader.tensors[-1]
        end = int(last.data_offset) + int(last.n_bytes)
        size = self.path.stat().st_size
        if end > size:
            raise ExportError(
                f"{self.path}: cut short, {size} of at least {end} bytes; fetch it again"
            )


class WholeGguf(GgufFile):
    """A GGUF that is run as it is: there is nothing here that could compute its logits."""

    @property
    def layers(self) -> int:
        """Blocks that the file says it has; 0 where it doesn't say."""
        return int(self.number(f"{self.architecture}.block_count", 0))

    @property
    def parameters(self) -> int:
        """Weights of all tensors."""
        return sum(int(tensor.n_elements) for tensor in self._reader.tensors)


def _opened(path: Path) -> Any:
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError) as error:
        old = re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", str(error))
        if old is not None:
            number = int(old[1])
            raise ExportError(
                f"{path}: a tensor has type {gguf_keys.OLD_TYPES.get(number, number)}, which"
                " isn't supported; quantise the model again with a newer llama.cpp"
            ) from error
        raise ExportError(
            f"{path}: not a readable GGUF, or cut short ({error}); fetch it again"
        ) from error
    if reader.byte_order != "I":
        # The scales inside its blocks would be read with their bytes swapped.
        raise ExportError(
            f"{path}: written for machines of another byte order; convert it with"
            " gguf_convert_endian.py of llama.cpp, or fetch the other file"
        )
    return reader
