"""Runners of a run config: what their names mean, and the user's files into the content store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import runners
from farm.core.errors import ConfigError, UnknownName
from farm.core.names import nearest
from farm.core.runner import OWN, RUNNER_KINDS, RunnerSpec
from farm.core.spec import RunSpec
from farm.store.objects import ContentStore
from runners.given import with_files


def resolve(spec: RunSpec) -> dict[str, RunnerSpec]:
    """Look up every runner of the matrix, with its files.

    Raises:
        UnknownName: Neither a kind nor described in the config.
        ConfigError: Its description is wrong; names file and key.
    """
    described = {runner.name: runner for runner in spec.runners}
    found = {}
    for index, name in enumerate(spec.matrix.runner):
        if name not in described and name not in RUNNER_KINDS:
            known = sorted({*RUNNER_KINDS, *described})
            meant = nearest(name, known)
            hint = "" if meant is None else f", did you mean {meant}?"
            raise UnknownName(
                f"{spec.source}: matrix.runner.{index}: unknown runner {name!r}{hint}; known: "
                f"{', '.join(known)}; describe your own under `runners`",
                known=known,
                file=spec.source,
                key=f"matrix.runner.{index}",
            )
        runner = described.get(name) or RunnerSpec(name, RUNNER_KINDS[name])
        found[name] = _complete(spec, runner)
    return found


def keep_files(found: Iterable[RunnerSpec], store: ContentStore) -> None:
    """Put the user's files into the store, from where sites get them.

    Raises:
        StoreError: A file changed since it was looked at, or the disk is full.
    """
    for runner in found:
        for file, source in zip(runner.files, runner.sources, strict=True):
            if not store.has(file.object.sha256, file.object.size_bytes):
                store.put_file(Path(source), file.object.name, sha256=file.object.sha256)


def _complete(spec: RunSpec, runner: RunnerSpec) -> RunnerSpec:
    try:
        complete = _with_traits(with_files(runner))
        runners.find(complete)
    except ConfigError as error:
        key = f"runners.{runner.name}.{error.context.get('key', '')}".rstrip(".")
        raise ConfigError(
            f"{spec.source}: {key}: {error.message}", file=spec.source, key=key
        ) from None
    return complete


def _with_traits(runner: RunnerSpec) -> RunnerSpec:
    """What planning has to know of each kind."""
    match runner.kind:
        case "executorch" | "executorch-tuned" | "executorch_python":
            return replace(runner, backends=OWN.backends)
        case "llama_main":
            return replace(runner, gives_logits=False, needs_tokenizer=True, sweeps=False)
        case "llama_cpp":
            return replace(runner, gives_logits=False, programs=("gguf",))
        case "command":
            return replace(
                runner,
                programs=("pte", "gguf"),
                gives_logits=runner.logits is not None,
                needs_tokenizer=any("{tokenizer}" in word for word in runner.argv),
                sweeps=False,
            )
    return runner
