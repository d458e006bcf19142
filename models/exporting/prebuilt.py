"""A program that somebody else exported: copied, its metadata methods read, nothing lowered."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from farm.core.artifact import Bundle, ExportResult, ModelMetadata
from farm.core.errors import ConfigError, ExportError
from models.checkpoint import TokenizerData
from models.exporting.identify import own_versions
from models.orders import ExportOrder
from models.sources.tokenizer_files import read_tokenizer_file
from models.staging import Staging, used

#: Methods that some programs have in place of `forward`.
_TWO = ("prefill", "decode")


def describe_prebuilt(order: ExportOrder, staging: Staging) -> ExportResult:
    """Make a bundle of a prebuilt program.

    Raises:
        ConfigError: The config gives no file.
        ExportError: It can't be read or isn't an ExecuTorch program.
    """
    started = time.monotonic()
    model = order.request.model
    if model.path is None:
        raise ConfigError(f"model {model.name}: a prebuilt artifact needs `pte: FILE`")
    methods = read_methods(Path(model.path))
    shutil.copyfile(model.path, staging.folder / "model.pte")
    if model.data is not None:
        shutil.copyfile(model.data, staging.folder / "model.ptd")
    tokenizer = None if model.tokenizer is None else read_tokenizer_file(Path(model.tokenizer))
    cpu_s, peak = used()
    bundle = Bundle(
        key=order.key,
        model=model.name,
        recipe=order.request.recipe.name,
        toolchain=order.request.toolchain.name,
        pte=staging.add("model.pte"),
        data=None if model.data is None else staging.add("model.ptd"),
        tokenizer=None if tokenizer is None else staging.text("tokenizer.json", tokenizer.json),
        chat_template=None if tokenizer is None else tokenizer.chat_template,
        metadata=_metadata(methods, tokenizer),
        backend=order.request.recipe.backend,
        has_reference=False,
    )
    return ExportResult(
        bundle=bundle,
        versions=own_versions(),
        seconds=round(time.monotonic() - started, 3),
        cpu_s=round(cpu_s, 3),
        peak_rss_bytes=peak,
        delegation=None,
        warnings=() if tokenizer is None else tokenizer.notes,
        no_replay="a prebuilt artifact comes without weights to export a layer from",
    )


def read_methods(path: Path) -> dict[str, Any]:
    """Values of the program's constant methods.

    Raises:
        ExportError: It can't be read, or has no method to run.
    """
    from executorch.runtime import Runtime

    if not path.is_file():
        raise ExportError(f"no prebuilt artifact at {path}")
    try:
        program = Runtime.get().load_program(path)
        names = program.method_names
        found = {}
        for name in sorted(names - {"forward", *_TWO}):
            method = program.load_method(name)
            if method is not None and method.metadata.num_inputs() == 0:
                found[name] = method.execute([])
    except RuntimeError as error:
        raise ExportError(f"{path}: not an ExecuTorch program that loads here: {error}") from error
    if "forward" not in names and not names >= {*_TWO}:
        raise ExportError(
            f"{path}: has neither a method `forward` nor `prefill` and `decode`; it has"
            f" {', '.join(sorted(names)) or 'none'}"
        )
    return found


def _metadata(methods: dict[str, Any], tokenizer: TokenizerData | None) -> ModelMetadata:
    def number(name: str, default: int) -> int:
        values = methods.get(name)
        return int(values[0]) if values else default

    stops = tuple(int(value) for value in methods.get("get_eos_ids", ()))
    bos = number("get_bos_id", -1)
    if tokenizer is not None:
        stops = stops or tokenizer.stop_ids
        bos = bos if bos >= 0 or tokenizer.bos_id is None else tokenizer.bos_id
    context = number("get_max_context_len", 128)
    return ModelMetadata(
        vocab_size=number("get_vocab_size", 0),
        layers=number("get_n_layers", 0),
        parameters=0,
        max_context=context,
        max_seq=number("get_max_seq_len", context),
        bos_id=bos if bos >= 0 else None,
        stop_ids=stops,
    )
