"""What users may write about how models are exported: toolchains and recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from farm.config.forms import Form, Name, Positive, Version
from farm.core.artifact import Backend, LinearQuantization, Scales


class ToolchainConfig(Form):
    """One toolchain."""

    executorch: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Version specifier (`==1.5.1`) or path of a wheel; default: farm's own."
    )
    torch: Version | None = Field(None, description="Version of torch; default: farm's own.")
    torchao: Version | None = Field(
        None, description="Version of torchao; default: farm's own, or pip's choice with `torch`."
    )
    source: str | None = Field(
        None,
        description="Git checkout of ExecuTorch that runners are built from; default: the wheel's"
        " C++ libraries. `executorch` is what exports.",
    )
    preset: Name | None = Field(None, description="A CMake preset of `source`.")

    @model_validator(mode="after")
    def _complete(self) -> ToolchainConfig:
        if self.executorch is None:
            if self.source is None:
                raise ValueError("executorch or source is needed")
            for name in ("torch", "torchao"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: needs `executorch`, which exports with it")
        if self.preset is not None and self.source is None:
            raise ValueError("preset: needs `source`, the checkout that has it")
        return self


class RecipeConfig(Form):
    """A recipe of your own: a built-in one, and what is different."""

    base: Name = Field(description="The built-in recipe that it changes (see `farm recipes`).")
    engine: Literal["farm", "stock"] = "farm"
    backend: Backend = "xnnpack"
    linear: LinearQuantization = "none"
    group_size: Positive | None = Field(None, description="Weights that share a scale; 4 bit only.")
    scales: Scales = Field(
        "range", description="Scales of 4-bit groups: `range`, or `hqq` (half-quadratic search)."
    )
    output_bits: Literal[8] | None = Field(
        None, description="Bits of the output projection; null is as all Linears."
    )
    wide: tuple[str, ...] = Field(
        (),
        description="Linears of 8 bits where the others have 4: `feed_forward.w2` of every layer,"
        " `layers.0` whole, `layers.0.attention.wv`, `output`.",
    )
    rotated: bool = Field(False, description="Round weights in a rotated basis (as SpinQuant).")
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
