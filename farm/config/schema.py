"""What users may write in run configs and inventories: pydantic models, unknown keys refused.

Knows the form only; farm.config.load turns it into core types.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from farm.config.asking import PromptConfig, PromptText
from farm.config.deploying import DeployConfig
from farm.config.exporting import RecipeConfig, ToolchainConfig
from farm.config.forms import Form, Name, Positive, distinct
from farm.config.quantities import GATE, accepted_loss, exact_share, share, size, threads
from farm.core.artifact import LogitsForm
from farm.core.errors import ConfigError
from farm.core.figures import Figure
from farm.core.names import meant, nearest
from farm.core.rules.gates import REGRESS
from farm.core.runner import RunnerKind
from farm.core.selector import parse_selector

#: What the number of a gate counts, by the end of its name.
_UNITS = {"tok_s": " of tokens per second", "_s": " of seconds", "_bytes": " of bytes"}


def _selector(value: str) -> str:
    try:
        parse_selector(value)
    except ConfigError as error:
        raise ValueError(error.message) from error
    return value


SelectorText = Annotated[str, AfterValidator(_selector)]
Share = Annotated[float, BeforeValidator(share), Field(ge=0, le=1)]
Threads = Annotated[int, BeforeValidator(threads)]
Names = Annotated[tuple[Name, ...], AfterValidator(distinct)]
Lengths = Annotated[tuple[Positive, ...], AfterValidator(distinct)]


class RegexConfig(Form):
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


class RunnerConfig(Form):
    """A runner of your own; see `farm runners` for the kinds."""

    kind: RunnerKind | None = Field(
        None, description="Default: the name where it is a kind's, else `command`."
    )
    push: tuple[str, ...] = Field((), description="Files and folders that go to the device.")
    argv: tuple[str, ...] = Field(
        (), description="Program and arguments; {model}, {prompt_file}, {threads} and others."
    )
    env: dict[str, str] = Field({})
    parse: Literal["pytorch_observer", "jsonl"] | RegexConfig | None = None
    logits: str | None = Field(None, description="File of raw fp32 logits that it writes.")
    text_file: Annotated[str, Field(pattern=r"^\w[\w.-]{0,120}$")] | None = Field(
        None, description="File of the generated text that it writes into {out}; else it prints it."
    )
    python: str | None = Field(None, description="Interpreter on the device, executorch_python.")


class ModelConfig(Form):
    """A model of your own: exactly one source."""

    name: Name
    hf: str | None = Field(None, description="Folder with config.json + safetensors, or hub id.")
    gguf: str | None = Field(None, description="A .gguf file.")
    meta: str | None = Field(None, description="Folder with consolidated.*.pth and params.json.")
    pte: str | None = Field(None, description="A prebuilt .pte: nothing is exported.")
    tokenizer: str | None = Field(None, description="tokenizer.json, where the source has none.")
    data: str | None = Field(None, description="The .ptd of a prebuilt .pte: external weights.")
    adapter: str | None = Field(None, description="Folder of a LoRA (peft), added to `hf`.")

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        given = [kind for kind in ("hf", "gguf", "meta", "pte") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError("name exactly one source: hf, gguf, meta or pte")
        if self.data is not None and self.pte is None:
            raise ValueError("`data` (a .ptd) goes with `pte` only")
        if self.adapter is not None and self.hf is None:
            raise ValueError("`adapter` (a LoRA) goes with `hf` only")
        return self


class MatrixConfig(Form):
    """Every combination is a cell."""

    recipe: Names = Field(("xnnpack-8da4w",), min_length=1)
    toolchain: Names | None = Field(
        None, min_length=1, description="Names of `toolchains`; default: all of them."
    )
    runner: Names = Field(("executorch",), min_length=1)
    threads: Annotated[tuple[Threads, ...], AfterValidator(distinct)] = Field((0,), min_length=1)


class DeviceRequestConfig(Form):
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


class WorkloadConfig(Form):
    """What is measured."""

    prefill: Lengths = (128,)
    decode: Lengths = (64,)
    depth: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(distinct)] = Field(
        (0,), min_length=1
    )
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
        None,
        description="Half width that intervals shall get below; default: gates.regress beside a"
        " baseline or with require.speed, else `launches` are enough unless a gate is open.",
    )
    sustained_s: Annotated[float, Field(gt=0, le=7200)] | None = Field(
        None, description="Then decode so long without a pause, such as 600: does it throttle?"
    )

    @model_validator(mode="after")
    def _at_least_is_less(self) -> WorkloadConfig:
        if self.launches > self.max_launches and "max_launches" in self.model_fields_set:
            raise ValueError(
                f"launches ({self.launches}) is more than max_launches ({self.max_launches})"
            )
        if not self.prefill and not self.decode:
            raise ValueError("prefill and decode are both empty: nothing would be measured")
        if self.sustained_s and not self.decode:
            raise ValueError("sustained_s decodes: it needs `decode`")
        return self


class CorrectnessConfig(Form):
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
    logits: LogitsForm = Field(
        "auto",
        description="How the logits of a device come: `whole`, as `compact` (some rows whole, of"
        " the others the largest values and sums of the rest), or `auto`: compact where the link"
        " would need more than 2 s for them.",
    )


class ExportConfig(Form):
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


class LimitsConfig(Form):
    """When a run ends what doesn't end by itself; the cells concerned read as errored."""

    job_s: float = Field(
        4 * 3600.0,
        gt=0,
        description="Most time of a job on its device, and of waiting for a person who holds that.",
    )
    run_s: float = Field(48 * 3600.0, gt=0, description="Most time of the whole run.")


class WaiverConfig(Form):
    """A known failure, allowed until a date."""

    cells: Annotated[str, Field(min_length=1)] = Field(description="Glob on cell ids.")
    gate: str
    metric: str = Field("", description="Only this metric, such as tg64 or decode_tok_s.")
    max_loss: Annotated[Share, Field(gt=0)] | None = Field(
        None, description="With `gate: regress`: only losses up to this, such as `5%`."
    )
    stage: Literal["", "tokens", "eager_fp32", "eager_quantised", "host_pte", "device_pte"] = Field(
        "", description="Of correctness: only where this stage differs from the one before it."
    )
    until: datetime.date
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]
    issue: str = ""


class RequireConfig(Form):
    """How much of a run must have been decided; `farm nightly` asks for 90% each by default."""

    judged: str | float | None = Field(None, description="Share of the cells, such as `95%`.")
    speed: str | float | None = Field(None, description="Share of cells with a gate on speed.")

    @field_validator("judged", "speed", mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        exact_share(value)
        return value


class SelfCheckConfig(Form):
    """How `farm nightly` tries its gate: a cell against itself every night, and a slower one."""

    every: Positive = Field(7, description="Nights from one planted slower artifact to the next.")
    slower: Name = Field(
        "xnnpack-8da4w-plain-sdpa",
        description="Recipe of the slower artifact; best about twice as much as `regress` allows.",
    )


class RunConfig(Form):
    """A run config, as users write it."""

    name: Name
    toolchains: dict[Name, ToolchainConfig] = Field({})
    models: tuple[Name | ModelConfig, ...] = Field(min_length=1)
    runners: dict[Name, RunnerConfig] = Field({})
    recipes: dict[Name, RecipeConfig] = Field({}, description="Recipes of your own, by name.")
    matrix: MatrixConfig = MatrixConfig()
    exclude: tuple[dict[str, str | int], ...] = ()
    devices: tuple[DeviceRequestConfig, ...] = Field((DeviceRequestConfig(each=""),), min_length=1)
    workload: WorkloadConfig = WorkloadConfig()
    correctness: CorrectnessConfig = CorrectnessConfig()
    prompts: tuple[PromptText | PromptConfig, ...] = Field(
        (), max_length=20, description="Asked of every cell's device; the report shows the answers."
    )
    export: ExportConfig = ExportConfig()
    limits: LimitsConfig = LimitsConfig()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    gates: dict[str, str] = Field({})
    require: RequireConfig = RequireConfig()
    waivers: tuple[WaiverConfig, ...] = ()
    deploy: DeployConfig | None = Field(None, description="What a green nightly deploys.")
    self_check: SelfCheckConfig | None = None

    @field_validator("exclude")
    @classmethod
    def _known_fields(
        cls, rules: tuple[dict[str, str | int], ...]
    ) -> tuple[dict[str, str | int], ...]:
        allowed = ("model", "recipe", "toolchain", "runner", "threads", "device")
        for rule in rules:
            if not rule:
                raise ValueError("an empty rule would leave out every cell")
            for key in rule:
                if key not in allowed:
                    raise ValueError(
                        f"{key!r} is no field of a cell{meant(key, allowed)}; allowed:"
                        f" {', '.join(allowed)}"
                    )
        return rules

    @field_validator("gates", mode="before")
    @classmethod
    def _texts(cls, gates: object) -> object:
        written = gates.items() if isinstance(gates, dict) else ()
        for name, bare in ((name, text) for name, text in written if not isinstance(text, str)):
            bound = "`2%` or `auto`" if name == REGRESS else "for example `>= 5`"
            raise ValueError(f"{name}: {bare!r} is no bound; write {bound}")
        return gates

    @field_validator("gates")
    @classmethod
    def _readable(cls, gates: dict[str, str]) -> dict[str, str]:
        for metric, text in gates.items():
            if metric == REGRESS:
                accepted_loss(text)
            elif GATE.match(text) is None:
                near = nearest(metric, (REGRESS,)) if text == "auto" or "%" in text else None
                hint = "" if near is None else f", did you mean {near}?"
                ends = (word for end, word in _UNITS.items() if metric.endswith(end))
                unit = next(ends, "")
                raise ValueError(
                    f"{metric}: {text!r} can't be read{hint}; write a number{unit} such as `>= 5`,"
                    " or a factor such as `<= 1.01x host` (host, eager_fp32, eager_quantised)"
                )
        return gates

    @field_validator("models")
    @classmethod
    def _once(cls, models: tuple[str | ModelConfig, ...]) -> tuple[str | ModelConfig, ...]:
        distinct(tuple(one if isinstance(one, str) else one.name for one in models))
        return models

    @model_validator(mode="after")
    def _toolchains_exist(self) -> RunConfig:
        for name in self.matrix.toolchain or ():
            if name not in self.toolchains and name != "default":
                known = ", ".join(["default", *self.toolchains])
                raise ValueError(f"matrix.toolchain: {name!r} is not defined; known: {known}")
        return self


def run_schema() -> dict[str, Any]:
    """JSON Schema of run configs."""
    return RunConfig.model_json_schema()
