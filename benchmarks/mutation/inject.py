"""How faults get in, each where it would arise: loader, quantiser, artifact, runner, device.

An injector takes a workbench and a size and gives the stages as they would be with the fault. What
a fault of the loader or the quantiser does to an export it does to eager too, since both use the
same code: there host and device are given what eager computes. A fault of the lowering is bytes of
the written artifact, one of the runner is a line of its source; both run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.mutation.workbench import Ran, Stages, Workbench
from farm.core.artifact import ExportResult, Recipe, TensorCheck
from farm.core.runner import RunnerBuild
from farm.paths import model_cache
from models.checkpoint import Checkpoint, SourceFile, TokenizerData
from models.config import ModelConfig
from models.eager import embedding as table_module
from models.eager import quantise
from models.eager.parts import PartBuilder, tied_reader
from models.eager.quantise import LinearFormat, QuantisedWeight, formats
from models.lowering.audit import Constants, Placed, check_weights, placed
from models.lowering.delegates import part_constants
from models.lowering.written import Constant, Written
from models.reference import logits
from models.reference.source import check_source
from models.staging import Staging
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer
from runners.build import native

Bytes: TypeAlias = npt.NDArray[np.uint8]
Values: TypeAlias = npt.NDArray[Any]
Injector = Callable[[Workbench, float], Stages]
Tensors = Callable[[str, torch.Tensor], torch.Tensor]


class Changed:
    """A checkpoint seen through a fault."""

    def __init__(
        self,
        real: Checkpoint,
        *,
        config: ModelConfig | None = None,
        tokenizer: TokenizerData | None = None,
        tensors: Tensors = lambda _name, value: value,
        names: dict[str, str] | None = None,
    ) -> None:
        self._real, self._tensors, self._names = real, tensors, names or {}
        self.config = config or real.config
        self.tokenizer = tokenizer or real.tokenizer
        self.files: tuple[SourceFile, ...] = real.files
        self.notes: tuple[str, ...] = real.notes

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, as the faulty loader gives it."""
        return self._tensors(name, self._real.tensor(self._names.get(name, name)))


def loader(change: Callable[[Checkpoint, float], Checkpoint]) -> Injector:
    """A fault that everything after the loader shares; the source is asked again."""

    def inject(bench: Workbench, size: float) -> Stages:
        faulty = change(bench.checkpoint, size)
        count = len(bench.healthy.reference.tokens)
        tokens = forced_tokens(Tokenizer(faulty.tokenizer), read_text("builtin"), count)
        fp32 = bench.eager(faulty, quantised=False, tokens=tokens)
        fp32.tofile(bench.folder / "eager_fp32.f32")
        quantised = bench.eager(faulty, quantised=True, tokens=tokens)
        source = check_source(
            bench.request, faulty, tokens, Staging(str(bench.folder)), model_cache(bench.home)
        )
        found = bench.with_eager(bench.healthy, fp32, quantised)
        reference = replace(found.reference, source=source, tokens=tokens)
        return replace(found, reference=reference)

    return inject


def config(**changes: Callable[[ModelConfig, float], object]) -> Injector:
    """A number of the model's shape that the loader reads wrongly."""

    def change(real: Checkpoint, size: float) -> Checkpoint:
        values = {name: make(real.config, size) for name, make in changes.items()}
        return Changed(real, config=replace(real.config, **values))  # type: ignore[arg-type]

    return loader(change)


def tensor(name: str, make: Callable[[torch.Tensor, float], torch.Tensor]) -> Injector:
    """A tensor that the loader reads wrongly."""

    def change(real: Checkpoint, size: float) -> Checkpoint:
        return Changed(
            real, tensors=lambda found, value: make(value, size) if found == name else value
        )

    return loader(change)


def swapped(first: str, second: str) -> Injector:
    """Two tensors of one shape that the loader takes for each other."""
    return loader(lambda real, _size: Changed(real, names={first: second, second: first}))


def tokenizer(make: Callable[[TokenizerData], TokenizerData]) -> Injector:
    """Another tokenizer, or other rules for it."""
    return loader(lambda real, _size: Changed(real, tokenizer=make(real.tokenizer)))


def quantiser(
    name: str, make: Callable[[QuantisedWeight, torch.Tensor, float], QuantisedWeight]
) -> Injector:
    """A Linear that the quantiser rounds wrongly, for eager and artifact alike."""
    real = quantise.quantise_weight

    def inject(bench: Workbench, size: float) -> Stages:
        target = tied_reader(bench.checkpoint.config, bench.checkpoint.tensor)(name)

        def faulty(weight: torch.Tensor, form: LinearFormat) -> QuantisedWeight:
            found = real(weight, form)
            same = weight.shape == target.shape and torch.equal(weight, target)
            return make(found, target, size) if same else found

        with (
            mock.patch.object(quantise, "quantise_weight", faulty),
            mock.patch.object(logits, "quantise_weight", faulty),
        ):
            stages = _quantised(bench)
            parts = _part_of(name, bench.checkpoint.config)
            made, where = _constants(bench, parts)
            checks = _checked(bench, where, Made(bench.written, made))
        return replace(stages, export=_with_checks(bench, checks))

    return inject


def embedding(make: Callable[[torch.Tensor, Recipe], torch.Tensor]) -> Injector:
    """An embedding table that is changed before it is rounded."""
    real = quantise.quantise_embedding

    def inject(bench: Workbench, size: float) -> Stages:
        del size

        def faulty(table: torch.Tensor, bits: int, group: int) -> QuantisedWeight:
            return real(make(table, bench.recipe), bits, group)

        with mock.patch.object(table_module, "quantise_embedding", faulty):
            stages = _quantised(bench)
            source = bench.checkpoint.tensor("tok_embeddings.weight")
            module = table_module.build_embedding(source, bench.recipe)
            stored = [Constant(value.numpy()) for value in module.buffers()]
            checks = _checked(bench, (), Made(bench.written, {}, stored))
        return replace(stages, export=_with_checks(bench, checks))

    return inject


def _quantised(bench: Workbench) -> Stages:
    """Eager again with what is patched now; host and device share it."""
    tokens = bench.healthy.reference.tokens
    found = bench.eager(bench.checkpoint, quantised=True, tokens=tokens)
    reference = bench.healthy.reference.eager_fp32
    assert reference is not None
    return bench.with_eager(bench.healthy, bench.open_ref(reference), found)


class Made:
    """Constants of an artifact, some of them replaced."""

    def __init__(
        self, real: Written, named: Mapping[str, bytes], first: Sequence[Constant] = ()
    ) -> None:
        self._real, self._first = real, first
        made = {key: memoryview(data) for key, data in named.items()}
        self.named: Mapping[str, memoryview] = {**real.named, **made}

    def constants(self) -> Iterator[Constant]:
        """The replaced ones, and those of the artifact that they don't stand for."""
        shapes = {(one.values.shape, one.values.dtype.itemsize) for one in self._first}
        yield from self._first
        for one in self._real.constants():
            if (one.values.shape, one.values.dtype.itemsize) not in shapes:
                yield one


def _part_of(name: str, config: ModelConfig) -> int:
    """Number of the part that holds a tensor."""
    if not name.startswith("layers."):
        return config.layers
    _, layer, rest = name.split(".", 2)
    before = rest.startswith(("attention.wq", "attention.wk", "attention.wv"))
    return int(layer) + (0 if before else 1)


def _constants(bench: Workbench, index: int) -> tuple[dict[str, bytes], list[Placed]]:
    """Constants of one part, built with what is patched now, and where its tensors are."""
    config = bench.checkpoint.config
    read = tied_reader(config, bench.checkpoint.tensor)
    module = PartBuilder(config, read, formats(bench.recipe)).build(index)
    found = part_constants(module)
    keys = {name: one.key for name, one in found.items()}
    data = {one.key: one.data for one in found.values()}
    return data, placed(module, keys, index, config.layers)


def _checked(
    bench: Workbench, where: Iterable[Placed], constants: Constants
) -> tuple[TensorCheck, ...]:
    read = bench.checkpoint.tensor
    return tuple(check_weights(bench.checkpoint.config, bench.recipe, read, where, constants))


def _with_checks(bench: Workbench, checks: Iterable[TensorCheck]) -> ExportResult:
    """The export as it is, with these tensors looked at anew."""
    found = {check.name: check for check in checks}
    export = bench.healthy.export
    return replace(export, weights=tuple(found.get(check.name, check) for check in export.weights))


def artifact(name: str, edit: Callable[[Edited, Workbench, float], None]) -> Injector:
    """Bytes of the written artifact that the lowering got wrong; host and device run them."""

    def inject(bench: Workbench, size: float) -> Stages:
        edited = Edited(bench, name)
        edit(edited, bench, size)
        edited.close()
        host = bench.check(edited.program)
        replay = bench.healthy.replay
        layer = bench.healthy.export.replay
        if layer is not None and edited.replay is not None:
            replay = bench.run_replay(layer, program=edited.replay)
        checks = _checked(bench, edited.where, Written(edited.program))
        ran = Ran(edited.program, bench.build)
        return replace(
            bench.healthy,
            export=_with_checks(bench, checks),
            host=host,
            device=host,
            replay=replay,
            host_ran=ran,
            device_ran=ran,
        )

    return inject


class Edited:
    """A copy of the artifact, and of its replayed layer, whose constants can be written."""

    def __init__(self, bench: Workbench, name: str) -> None:
        """Copy.

        Args:
            bench: Has the artifact.
            name: Tensors of one part that are edited; empty for constants outside delegates.
        """
        self.program = bench.folder / f"edited-{uuid4().hex}.pte"
        shutil.copyfile(bench.pte, self.program)
        self.where: list[Placed] = []
        self._bench = bench
        names = name.split()
        if names:
            _, where = _constants(bench, _part_of(names[0], bench.checkpoint.config))
            self.where = [one for one in where if one.tensor in names]
        self.replay: Path | None = None
        self._maps = [_Map(self.program)]
        layer = bench.healthy.export.replay
        if layer is not None:
            path = bench.store.path(layer.pte)
            known = Written(path).named
            keys = [key for one in self.where for key in (*one.values, one.scales or "")]
            if any(key in known for key in keys):
                self.replay = bench.folder / f"edited-{uuid4().hex}.pte"
                shutil.copyfile(path, self.replay)
                self._maps.append(_Map(self.replay))

    def rows(self, name: str) -> int:
        """Rows of a tensor."""
        config = self._bench.checkpoint.config
        return int(tied_reader(config, self._bench.checkpoint.tensor)(name).shape[0])

    def bytes(self, key: str) -> Bytes:
        """A delegate's constant as it is."""
        return np.frombuffer(self._maps[0].written.named[key], "u1").copy()

    def named(self, key: str, make: Callable[[Bytes], Bytes]) -> None:
        """Replace the bytes of a delegate's constant."""
        for file in self._maps:
            view = file.written.named.get(key)
            if view is not None:
                place = np.frombuffer(view, "u1")
                file.write(place, make(place))

    def constant(
        self, wanted: Callable[[Constant], bool], make: Callable[[Values], Values]
    ) -> None:
        """Replace constant tensors outside the delegates."""
        file = self._maps[0]
        for one in list(file.written.constants()):
            if wanted(one):
                file.write(one.values, make(one.values).astype(one.values.dtype))

    def close(self) -> None:
        """Bring everything to the files."""
        for file in self._maps:
            file.close()


class _Map:
    """A file whose constants are read through one mapping and written through another."""

    def __init__(self, path: Path) -> None:
        self.written = Written(path)
        self._target = np.memmap(path, "u1", "r+")
        self._path = path

    def write(self, place: Values, data: Values) -> None:
        """Put bytes where an array of the other mapping begins."""
        begin = np.frombuffer(self.written.raw, "u1").__array_interface__["data"][0]
        at = place.__array_interface__["data"][0] - begin
        flat = np.ascontiguousarray(data).view("u1").reshape(-1)
        self._target[at : at + len(flat)] = flat

    def close(self) -> None:
        """Flush."""
        self._target.flush()


def scales_of(edited: Edited, make: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the scales of the edited tensor, float32 in and out; bfloat16 in the file."""
    (one,) = edited.where
    assert one.scales is not None

    def changed(data: Bytes) -> Bytes:
        wide = (data.view("<u2").astype("<u4") << 16).view("<f4")
        made = torch.from_numpy(make(wide.copy())).to(torch.bfloat16)
        return made.view(torch.uint8).numpy()

    edited.named(one.scales, changed)


def runner(file: str, old: str, new: str) -> Injector:
    """A line of the runner's source that is wrong; `{size}` in it is the size."""

    def inject(bench: Workbench, size: float) -> Stages:
        build = faulty_build(bench, file, old, new.replace("{size}", f"{size!r}"))
        host = bench.check(bench.pte, build)
        layer = bench.healthy.export.replay
        return replace(
            bench.healthy,
            host=host,
            device=host,
            canary=bench.run_canary(build),
            replay=None if layer is None else bench.run_replay(layer, build),
            host_ran=Ran(bench.pte, build),
            device_ran=Ran(bench.pte, build),
        )

    return inject


def faulty_build(bench: Workbench, file: str, old: str, new: str) -> RunnerBuild:
    """Build the runner from a copy of its sources with one piece replaced."""
    folder = bench.folder / f"native-{uuid4().hex}"
    shutil.copytree(native.SOURCES, folder)
    text = (folder / file).read_text(encoding="utf-8")
    if old not in text:
        raise SystemExit(f"{file} has no {old!r} any more: mend the table of faults")
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with mock.patch.object(native, "SOURCES", folder):
        return bench.built()


def device(inner: Injector, *, other_cpu: bool = False) -> Injector:
    """A fault that only the device has: the host runs what it should."""

    def inject(bench: Workbench, size: float) -> Stages:
        found, well = inner(bench, size), bench.healthy
        return replace(
            found, host=well.host, export=well.export, other_cpu=other_cpu, host_ran=None
        )

    return inject
