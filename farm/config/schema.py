"""What users may write in run configs and inventories: pydantic models, unknown keys refused.

Knows the form only; farm.config.load turns it into core types.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from farm.config.quantities import accepted_loss, exact_share, share, size, threads
from farm.core.artifact import Backend, LinearQuantization
from farm.core.errors import ConfigError
from farm.core.figures import Figure
from farm.core.runner import RunnerKind
from farm.core.selector import parse_selector

GATE = re.compile(
    r"^\s*(?P<op><=|>=|==|<|>)\s*(?P<value>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"(?:\s*x\s+(?P<base>host|eager_fp32|eager_quantised))?\s*$"
)


def _selector(value: str) -> str:
    try:
        parse_selector(value)
    except ConfigError as error:
        raise ValueError(error.message) from error
    return value


SelectorText = Annotated[str, pydantic.AfterValidator(_selector)]
Share = Annotated[float, BeforeValidator(share), Field(ge=0, le=1)]
Threads = Annotated[int, BeforeValidator(threads)]
Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]

#: One release of a package, no range of them.
Version = Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+!]*$", max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolchainConfig(_Model):
    """One toolchain."""

    executorch: str = Field(description="Version specifier (`==1.5.1`) or path of a wheel.")
    torch: Version | None = Field(None, description="Version of torch; default: farm's own.")
    torchao: Version | None = Field(
        None, description="Version of torchao; default: farm's own, or pip's choice with `torch`."
    )


class RegexConfig(_Model):
    """Patterns that find figures in what a program prints."""

    regex: dict[Figure, str] = Field(min_length=1)

    @field_validator("regex")
    @classmethod
    def _readable(cls, patterns: dict[str, str]) -> dict[str, str]:
        for figure, text in patterns.items():
            try:
                groups = re.compile(text).groups
            except re.error as error:
                raise ValueError(f"{figure}: {text!r} is no regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"{figure}: {text!r} needs one group, it has {groups}")
        return patterns


class RunnerConfig(_Model):
    """A runner of your own; see `farm runners` for the kinds."""

    kind: RunnerKind | None = Field(
        None, description="Default: the name where it is a kind's, else `command`."
    )
    push: tuple[str, ...] = Field((), description="Files and folders that go to the device.")
    argv: tuple[str, ...] = Field(
        (), description="Program and arguments; {model}, {prompt_file}, {threads} and others."
    )
    env: dict[str, str] = {}
    parse: Literal["pytorch_observer", "jsonl"] | RegexConfig | None = None
    logits: str | None = Field(None, description="File of raw fp32 logits that it writes.")
    text_file: Annotated[str, Field(pattern=r"^\w[\w.-]{0,120}$")] | None = Field(
        None, description="File of the generated text that it writes into {out}; else it prints it."
    )
    python: str | None = Field(None, description="Interpreter on the device, executorch_python.")


class ModelConfig(_Model):
    """A model of your own: exactly one source."""

    name: Name
    hf: str | None = Field(None, description="Folder with config.json + safetensors, or hub id.")
    gguf: str | None = Field(None, description="A .gguf file.")
    meta: str | None = Field(None, description="Folder with consolidated.*.pth and params.json.")
    pte: str | None = Field(None, description="A prebuilt .pte: nothing is exported.")
    tokenizer: str | None = Field(None, description="tokenizer.json, where the source has none.")
    data: str | None = Field(None, description="The .ptd of a prebuilt .pte: external weights.")

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        given = [kind for kind in ("hf", "gguf", "meta", "pte") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError("name exactly one source: hf, gguf, meta or pte")
        if self.data is not None and self.pte is None:
            raise ValueError("`data` (a .ptd) goes with `pte` only")
        return self


class RecipeConfig(_Model):
    """A recipe of your own: a built-in one, and what is different."""

    base: Name = Field(description="The built-in recipe that it changes (see `farm recipes`).")
    engine: Literal["farm", "stock"] = "farm"
    backend: Backend = "xnnpack"
    linear: LinearQuantization = "none"
    group_size: Positive | None = Field(None, description="Weights that share a scale; 4 bit only.")
    embedding_bits: Literal[4, 8] | None = Field(None, description="null leaves the table in fp32.")
    embedding_group: Annotated[int, Field(ge=0)] = Field(0, description="0 is one group a row.")
    quantised_kv_cache: bool = False
    custom_sdpa: bool = True
    max_context: Positive = Field(512, description="Length of the KV cache, tokens.")
    max_seq: Positive = Field(512, description="Longest single forward, tokens.")
    dynamic_shape: bool = True
    external_weights: bool = Field(
        False, description="Weights in a .ptd beside a small program; engine farm only."
    )
    options: dict[str, str | int | float | bool] = Field(
        {}, description="engine stock only: any key of LlmConfig, as `group.key: value`."
    )


class MatrixConfig(_Model):
    """Every combination is a cell."""

    recipe: tuple[Name, ...] = Field(("xnnpack-8da4w",), min_length=1)
    toolchain: tuple[Name, ...] | None = Field(
        None, min_length=1, description="Names of `toolchains`; default: all of them."
    )
    runner: tuple[Name, ...] = Field(("executorch",), min_length=1)
    threads: tuple[Threads, ...] = Field((0,), min_length=1)


class DeviceRequestConfig(_Model):
    """Either `each: SELECTOR`, or `any: N` of a pool."""

    each: SelectorText | None = None
    pool: Name | None = None
    select: SelectorText | None = None
    any: Positive | None = None

    @model_validator(mode="after")
    def _one_form(self) -> DeviceRequestConfig:
        if (self.each is None) == (self.any is None):
            raise ValueError(
                'write either {each: "transport=adb"} or {pool: NAME, select: "...", any: 2}'
            )
        if self.each is not None and (self.pool or self.select):
            raise ValueError("`pool` and `select` go with `any`, not with `each`")
        return self


class WorkloadConfig(_Model):
    """What is measured."""

    prefill: tuple[Positive, ...] = (128,)
    decode: tuple[Positive, ...] = (64,)
    depth: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    launches: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="Process starts, at least; more until the rates are known well enough."
    )
    max_launches: Annotated[int, Field(ge=1, le=1000)] = Field(
        50, description="Process starts, at most; never less than `launches` unless given."
    )
    cold_launches: Annotated[int, Field(ge=0, le=20)] = Field(
        1, description="Process starts with the program out of the page cache."
    )
    repetitions: Annotated[int, Field(ge=1, le=100)] = 3
    warmup: Annotated[int, Field(ge=0, le=10)] = 1
    window_ms: Annotated[int, Field(ge=0, le=10_000)] = Field(
        125, description="Shorter prefill or decode is repeated in a window till it is so long."
    )
    budget_s: Annotated[float, Field(gt=0)] = Field(
        120.0, description="Seconds that a cell may spend in measuring."
    )
    precision: Annotated[Share, Field(gt=0)] | None = Field(
        None, description="Half width that intervals shall get below; default: gates.regress."
    )

    @model_validator(mode="after")
    def _at_least_is_less(self) -> WorkloadConfig:
        if self.launches > self.max_launches and "max_launches" in self.model_fields_set:
            raise ValueError(
                f"launches ({self.launches}) is more than max_launches ({self.max_launches})"
            )
        if not self.prefill and not self.decode:
            raise ValueError("prefill and decode are both empty: nothing would be measured")
        return self


class CorrectnessConfig(_Model):
    """What is compared with eager PyTorch."""

    text: str = Field("builtin", description="`builtin`, or a UTF-8 text file.")
    tokens: Annotated[int, Field(ge=16, le=4096)] = 256
    prompt: str = "What is the capital of France?"
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 48
    canary: bool = Field(
        True,
        description="A small fp32 program, and one layer of the model on recorded inputs, check"
        " the kernels of every device first.",
    )


class ExportConfig(_Model):
    """What an export may take on its host."""

    cpus: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="CPUs set aside for it, and its threads."
    )
    memory: Annotated[int, BeforeValidator(size)] | None = Field(
        None, description="Memory set aside, for example `6GiB`; default: an estimate."
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="Most time of one export, reference, or toolchain installation."
    )


class LimitsConfig(_Model):
    """When a run ends what doesn't end by itself; the cells concerned read as errored."""

    job_s: float = Field(4 * 3600.0, gt=0, description="Most time of a job, waits included.")
    run_s: float = Field(48 * 3600.0, gt=0, description="Most time of the whole run.")


class WaiverConfig(_Model):
    """A known failure, allowed until a date."""

    cells: Annotated[str, Field(min_length=1)] = Field(description="Glob on cell ids.")
    gate: str
    metric: str = Field("", description="Only this metric, such as tg64 or decode_tok_s.")
    max_loss: Annotated[Share, Field(gt=0)] | None = Field(
        None, description="With `gate: regress`: only losses up to this, such as `5%`."
    )
    until: datetime.date
    reason: Annotated[str, Field(min_length=3)]
    issue: str = ""


class RequireConfig(_Model):
    """How much of a run must have been decided; `farm nightly` asks for 90% each by default."""

    judged: str | float | None = Field(None, description="Share of the cells, such as `95%`.")
    speed: str | float | None = Field(
        None, description="Share of the cells with a gate on speed, such as `90%`."
    )

    @field_validator("judged", "speed", mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        exact_share(value)
        return value


class RunConfig(_Model):
    """A run config, as users write it."""

    name: Name
    toolchains: dict[Name, ToolchainConfig] = {}
    models: tuple[Name | ModelConfig, ...] = Field(min_length=1)
    runners: dict[Name, RunnerConfig] = {}
    recipes: dict[Name, RecipeConfig] = Field({}, description="Recipes of your own, by name.")
    matrix: MatrixConfig = MatrixConfig()
    exclude: tuple[dict[str, str | int], ...] = ()
    devices: tuple[DeviceRequestConfig, ...] = Field((DeviceRequestConfig(each=""),), min_length=1)
    workload: WorkloadConfig = WorkloadConfig()
    correctness: CorrectnessConfig = CorrectnessConfig()
    export: ExportConfig = ExportConfig()
    limits: LimitsConfig = LimitsConfig()
    gates: dict[str, str] = {}
    require: RequireConfig = RequireConfig()
    waivers: tuple[WaiverConfig, ...] = ()

    @field_validator("exclude")
    @classmethod
    def _known_fields(
        cls, rules: tuple[dict[str, str | int], ...]
    ) -> tuple[dict[str, str | int], ...]:
        allowed = ("model", "recipe", "toolchain", "runner", "threads", "device")
        for rule in rules:
            for key in rule:
                if key not in allowed:
                    raise ValueError(
                        f"{key!r} is no field of a cell; allowed: {', '.join(allowed)}"
                    )
        return rules

    @field_validator("gates", mode="before")
    @classmethod
    def _texts(cls, gates: object) -> object:
        written = gates if isinstance(gates, dict) else {}
        bare = [f"{name}: {text!r}" for name, text in written.items() if not isinstance(text, str)]
        if bare:
            raise ValueError(f"{bare[0]} has no direction; write for example `>= 5`")
        return gates

    @field_validator("gates")
    @classmethod
    def _readable(cls, gates: dict[str, str]) -> dict[str, str]:
        for metric, text in gates.items():
            if metric == "regress":
                accepted_loss(text)
            elif GATE.match(text) is None:
                raise ValueError(
                    f"{metric}: {text!r} can't be read; write `<= 1.01x host`, `>= 5` or, "
                    "for regress, `2%` or `auto`"
                )
        return gates

    @model_validator(mode="after")
    def _toolchains_exist(self) -> RunConfig:
        for name in self.matrix.toolchain or ():
            if name not in self.toolchains and name != "default":
                known = ", ".join(["default", *self.toolchains])
                raise ValueError(f"matrix.toolchain: {name!r} is not defined; known: {known}")
        return self


class ThermalConfig(_Model):
    """When a device is too warm to measure."""

    battery_max_c: float | None = None
    wait_max_s: Annotated[float, Field(ge=0)] = 600.0


class CommandStep(_Model):
    """A recovery step that is a command on the host."""

    command: str


class DeviceConfig(_Model):
    """One device of an inventory."""

    name: Name
    transport: Literal["adb", "ssh", "local", "sim"]
    site: str = ""
    serial: str | None = None
    adb_server: str | None = Field(None, description="host:port of the adb server.")
    host: str | None = None
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: str | None = None
    known_hosts: str | None = None
    root: str | None = Field(None, description="Folder of farm on the device.")
    labels: dict[Name, str] = {}
    expect: dict[str, str] = {}
    thermal: ThermalConfig = ThermalConfig()
    recover: tuple[Literal["reconnect", "reboot"] | CommandStep, ...] = ()
    sim: dict[str, str] = {}

    @model_validator(mode="after")
    def _complete(self) -> DeviceConfig:
        if self.transport == "adb" and not self.serial:
            raise ValueError("an adb device needs `serial` (see `adb devices`)")
        if self.transport == "ssh" and not self.host:
            raise ValueError("an ssh device needs `host`")
        return self


class DefaultsConfig(_Model):
    """Devices that need no entry."""

    adb: Literal["auto", "none"] = "auto"
    local: bool = True


class InventoryConfig(_Model):
    """An inventory, as users write it."""

    devices: tuple[DeviceConfig, ...] = ()
    defaults: DefaultsConfig = DefaultsConfig()


def run_schema() -> dict[str, Any]:
    """JSON Schema of run configs."""
    return RunConfig.model_json_schema()


def inventory_schema() -> dict[str, Any]:
    """JSON Schema of inventories."""
    return InventoryConfig.model_json_schema()
