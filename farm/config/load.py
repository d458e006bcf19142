"""Run configs and inventories: YAML to frozen core types, once. Unknown keys are refused.

Errors read `file: path.to.key: what is wrong, what is allowed`. Nothing here knows which models,
recipes or runners exist; names are resolved by the composition root.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel

from farm.config.asking import as_prompt
from farm.config.exporting import RecipeConfig
from farm.config.gates import check_gates
from farm.config.inventory_schema import DeviceConfig, InventoryConfig
from farm.config.quantities import GATE, accepted_loss, exact_share, share
from farm.config.refusals import refusal
from farm.config.schema import ModelConfig, RegexConfig, RunConfig, RunnerConfig, WorkloadConfig
from farm.config.yaml_text import read_value
from farm.core import spec as core
from farm.core.artifact import ModelSource, SourceKind, Toolchain
from farm.core.device import DeviceEntry, Inventory, ThermalLimits
from farm.core.errors import ConfigError
from farm.core.printable import shown_value
from farm.core.runner import RUNNER_KINDS, RunnerSpec

_M = TypeVar("_M", bound=BaseModel)


def load_run(path: Path, overrides: Sequence[str] = ()) -> tuple[core.RunSpec, dict[str, Any]]:
    """Read a run config.

    Args:
        path: The YAML file.
        overrides: `dotted.key=VALUE` texts, VALUE in YAML, applied before validation.

    Returns:
        The spec, and the config as plain data after overrides, for reports: values of variables
        that runners are given are masked.

    Raises:
        ConfigError: It can't be read or is wrong; names file and key.
    """
    data = _read_yaml(path)
    for override in overrides:
        _apply(data, override)
    config = _validate(RunConfig, data, path)
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    spec = _run_spec(config, path, hashlib.sha256(text.encode()).hexdigest())
    check_gates(spec)
    return spec, _plain(_masked(data))


def _plain(value: Any) -> Any:
    """What YAML reads as a date is text again: reports and plans are JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _masked(data: dict[str, Any]) -> dict[str, Any]:
    """The config without values of `runners.*.env`, which may be keys and tokens."""
    runners = {}
    for name, runner in (data.get("runners") or {}).items():
        given = runner.get("env") or {}
        env = {key: shown_value(key, str(value)) for key, value in given.items()}
        runners[name] = {**runner, "env": env} if env else runner
    return {**data, "runners": runners} if runners else data


def load_inventory(path: Path | None) -> Inventory:
    """Read an inventory; without a file: every adb device attached, and this machine.

    Raises:
        ConfigError: It can't be read or is wrong; names file and key.
    """
    if path is None:
        return Inventory(entries=())
    config = _validate(InventoryConfig, _read_yaml(path), path)
    names: set[str] = set()
    entries = []
    for index, device in enumerate(config.devices):
        origin = f"{path}: devices.{index}"
        if device.name in names:
            raise ConfigError(f"{origin}.name: {device.name!r} is used twice", file=str(path))
        names.add(device.name)
        entries.append(_device_entry(device, path.parent, origin))
    return Inventory(
        entries=tuple(entries),
        adb_auto=config.defaults.adb == "auto",
        local=config.defaults.local is True or (config.defaults.local == "auto" and not entries),
        source=str(path),
    )


def _device_entry(device: DeviceConfig, base: Path, origin: str) -> DeviceEntry:
    identity = None if device.identity is None else _near(base, device.identity)
    known_hosts = None if device.known_hosts is None else _near(base, device.known_hosts)
    return DeviceEntry(
        name=device.name,
        transport=device.transport,
        site=device.site,
        serial=device.serial,
        adb_server=device.adb_server,
        host=device.host,
        user=device.user,
        port=device.port,
        identity=identity,
        known_hosts=known_hosts,
        root=device.root,
        labels=tuple(device.labels.items()),
        expect=tuple(device.expect.items()),
        thermal=ThermalLimits(device.thermal.battery_max_c, device.thermal.wait_max_s),
        recover=tuple(
            step if isinstance(step, str) else f"command: {step.command}" for step in device.recover
        ),
        origin=origin,
        sim=tuple(device.sim.items()),
    )


def _run_spec(config: RunConfig, path: Path, sha256: str) -> core.RunSpec:
    base = path.parent
    toolchains = tuple(
        Toolchain(
            name,
            "" if value.executorch is None else _requirement(value.executorch, base),
            value.torch or "",
            value.torchao or "",
            source="" if value.source is None else _near(base, value.source),
            preset=value.preset or "",
        )
        for name, value in config.toolchains.items()
    ) or (Toolchain("default"),)
    names = config.matrix.toolchain or tuple(toolchain.name for toolchain in toolchains)
    if "default" in names and "default" not in config.toolchains:
        toolchains = tuple(dict.fromkeys((*toolchains, Toolchain("default"))))
    text = config.correctness.text
    gates = dict(config.gates)
    regress = accepted_loss(gates.pop("regress", "2%"))
    return core.RunSpec(
        name=config.name,
        models=tuple(
            ModelSource(model) if isinstance(model, str) else _model_source(model, base)
            for model in config.models
        ),
        toolchains=toolchains,
        runners=tuple(_runner(name, runner, base) for name, runner in config.runners.items()),
        recipes=tuple(_recipe(name, recipe) for name, recipe in config.recipes.items()),
        matrix=core.Matrix(
            recipe=config.matrix.recipe,
            toolchain=names,
            runner=config.matrix.runner,
            threads=config.matrix.threads,
        ),
        exclude=tuple(
            tuple((key, str(value)) for key, value in rule.items()) for rule in config.exclude
        ),
        devices=tuple(
            core.DeviceRequest(select=request.each)
            if request.each is not None
            else core.DeviceRequest(request.select or "", request.any, request.pool or "")
            for request in config.devices
        ),
        workload=_workload(config.workload),
        correctness=core.Correctness(
            text=text if text == "builtin" else _near(base, text),
            tokens=config.correctness.tokens,
            prompt=config.correctness.prompt,
            max_new_tokens=config.correctness.max_new_tokens,
            canary=config.correctness.canary,
            logits=config.correctness.logits,
        ),
        prompts=tuple(map(as_prompt, config.prompts)),
        export=core.Resources(
            cpus=config.export.cpus or 0,
            memory_bytes=config.export.memory or 0,
            timeout_s=config.export.timeout_s,
        ),
        limits=core.Limits(config.limits.job_s, config.limits.run_s),
        gates=tuple(_gate(metric, text) for metric, text in gates.items()),
        regress=share("2%") if regress is None else regress,
        regress_auto=regress is None,
        priority=config.priority,
        require=core.Require(_exact(config.require.judged), _exact(config.require.speed)),
        waivers=tuple(
            core.Waiver(
                w.cells,
                w.gate,
                w.until.isoformat(),
                w.reason,
                w.issue,
                w.metric,
                w.max_loss,
                w.stage,
            )
            for w in config.waivers
        ),
        deploy=None if config.deploy is None else config.deploy.wish,
        self_check=None
        if config.self_check is None
        else core.SelfCheckSpec(config.self_check.every, config.self_check.slower),
        source=str(path),
        sha256=sha256,
    )


def _exact(value: str | float | None) -> Fraction | None:
    return None if value is None else exact_share(value)


def _recipe(name: str, recipe: RecipeConfig) -> core.RecipeChange:
    """Only what the user wrote is a change; the base says the rest."""
    given = sorted(recipe.model_fields_set - {"base", "options"})
    fields: list[tuple[str, core.RecipeValue]] = [(key, getattr(recipe, key)) for key in given]
    if recipe.options:
        options = tuple(sorted((key, str(value)) for key, value in recipe.options.items()))
        fields.append(("options", options))
    return core.RecipeChange(name, recipe.base, tuple(fields))


def _requirement(text: str, base: Path) -> str:
    """Take wheel files from the config's folder; a version specifier is left as it is."""
    return _near(base, text) if text.strip().endswith(".whl") else text


_KINDS: tuple[SourceKind, ...] = ("hf", "gguf", "meta", "pte")


def _model_source(model: ModelConfig, base: Path) -> ModelSource:
    """Take relative files from the config's folder; an `hf` that is no folder is a hub id."""
    kind = next(kind for kind in _KINDS if getattr(model, kind))
    path: str = getattr(model, kind)
    hub_id = kind == "hf" and not Path(_near(base, path)).exists()
    return ModelSource(
        name=model.name,
        kind=kind,
        path=path if hub_id else _near(base, path),
        tokenizer=None if model.tokenizer is None else _near(base, model.tokenizer),
        data=None if model.data is None else _near(base, model.data),
        adapter=None if model.adapter is None else _near(base, model.adapter),
    )


def _workload(config: WorkloadConfig) -> core.Workload:
    most = max(config.launches, config.max_launches)
    return core.Workload(**config.model_dump() | {"max_launches": most})


def _runner(name: str, config: RunnerConfig, base: Path) -> RunnerSpec:
    """Take over what the config says; files are looked at when names are resolved."""
    parse = config.parse
    return RunnerSpec(
        name=name,
        kind=config.kind or RUNNER_KINDS.get(name, "command"),
        sources=tuple(_near(base, text) for text in config.push),
        argv=config.argv,
        env=tuple(config.env.items()),
        parse="regex" if isinstance(parse, RegexConfig) else parse,
        patterns=tuple(parse.regex.items()) if isinstance(parse, RegexConfig) else (),
        logits=config.logits,
        text_file=config.text_file,
        python=config.python,
    )


def _gate(metric: str, text: str) -> core.Gate:
    match = GATE.match(text)
    assert match is not None, "validated by RunConfig"
    operators: dict[str, core.Operator] = {"<=": "<=", ">=": ">=", "<": "<", ">": ">", "==": "=="}
    relative: dict[str | None, Literal["host", "eager_fp32", "eager_quantised"] | None] = {
        None: None,
        "host": "host",
        "eager_fp32": "eager_fp32",
        "eager_quantised": "eager_quantised",
    }
    return core.Gate(
        metric=metric,
        op=operators[match["op"]],
        value=float(match["value"]),
        relative_to=relative[match["base"]],
        text=text.strip(),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file; `ls configs` shows the examples", file=str(path)
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8: save the file in that encoding",
            file=str(path),
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error}", file=str(path)) from error
    data = read_value(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values", file=str(path))
    return data


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {override!r}: write dotted.key=VALUE, for example `--set workload.decode=[32]`",
            key=key,
        )
    value = read_value(text, f"--set {override!r}")
    *parents, last = key.strip().split(".")
    target: Any = data
    for parent in parents:
        target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} holds no keys", key=key)
    target[last] = value


def _validate(kind: type[_M], data: Mapping[str, Any], path: Path) -> _M:
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        raise refusal(kind, error, path) from None


def _near(base: Path, text: str) -> str:
    path = Path(text).expanduser()
    return str(path if path.is_absolute() else (base / path).resolve())
