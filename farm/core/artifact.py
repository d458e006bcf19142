"""What an export takes and makes: models, recipes, toolchains, bundles, logits.

Everything here crosses processes (Ray tasks, the toolchain's worker) and is plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["xnnpack", "portable", "vulkan", "coreml", "qnn", "openvino", "mps", "ggml"]
LinearQuantization = Literal["none", "8da4w", "4w", "int8"]
Scales = Literal["range", "hqq"]
SourceKind = Literal["registry", "gguf", "hf", "meta", "pte", "seeded"]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A file of the content store."""

    sha256: str
    size_bytes: int
    #: File name for people and for the work folder, for example `model.pte`.
    name: str


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from. `registry` names are resolved by models.known."""

    name: str
    kind: SourceKind = "registry"
    #: File or folder (gguf, hf, meta, pte) or hub id (hf); None for registry names.
    path: str | None = None
    #: Tokenizer file; needed where the source holds none (pte).
    tokenizer: str | None = None
    #: External weights (.ptd) of a prebuilt artifact; None when they are inside the program.
    data: str | None = None
    #: Folder of a LoRA adapter, which is added to the weights (hf); None where there is none.
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is quantised and lowered: data, no code. Not to be confused with a stage."""

    name: str
    #: `none`: the model's own file as it is, nothing exported.
    engine: Literal["farm", "stock", "none"] = "farm"
    backend: Backend = "xnnpack"
    linear: LinearQuantization = "none"
    #: Group size of 4-bit weights; None where the quantisation has no groups.
    group_size: int | None = None
    #: How scales of 4-bit groups are chosen: by the largest weight, or by half-quadratic search.
    scales: Scales = "range"
    #: Bits of the output projection where it has others than all Linears; one scale a row.
    output_bits: Literal[8] | None = None
    #: Linears of 8 bits with one scale a row where the others have 4, in every layer
    #: (`feed_forward.w2`) or in one (`layers.3.feed_forward.w2`); `layers.3` is all of a layer.
    wide: tuple[str, ...] = ()
    #: Weights are rounded in a rotated basis, which spreads outliers.
    rotated: bool = False
    #: Bits of the embedding table; None leaves it in fp32.
    embedding_bits: Literal[4, 8] | None = None
    #: Group size of the embedding; 0 is one group a row.
    embedding_group: int = 0
    quantised_kv_cache: bool = False
    custom_sdpa: bool = True
    #: Length of the KV cache in tokens.
    max_context: int = 512
    #: Longest single forward in tokens.
    max_seq: int = 512
    dynamic_shape: bool = True
    #: Weights in a file of their own (.ptd) beside a small program: recipes that differ in
    #: context or attention only share it, byte for byte. `engine: farm` only.
    external_weights: bool = False
    #: `engine: stock` only: LlmConfig keys and values, as `group.key`.
    options: tuple[tuple[str, str], ...] = ()

    def is_wide(self, linear: str) -> bool:
        """Whether a Linear has 8 bits where the others have 4.

        Args:
            linear: Its full name: `layers.3.feed_forward.w2`, or `output`.
        """
        if linear == "output":
            return self.output_bits is not None or linear in self.wide
        _, number, name = linear.split(".", 2)
        return not {linear, name, f"layers.{number}"}.isdisjoint(self.wide)

    @property
    def program(self) -> Literal["pte", "gguf"]:
        """What kind of file a runner has to load."""
        return "gguf" if self.engine == "none" else "pte"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A named set of exporter versions, in a virtual environment of its own."""

    name: str
    #: A version specifier (`==1.5.1`), a wheel path, or empty for farm's own environment.
    executorch: str = ""
    #: Versions of what it exports with; empty is farm's own torch, and with it farm's own torchao.
    torch: str = ""
    torchao: str = ""
    #: Folder of a git checkout of ExecuTorch that runners are built from, and one of its CMake
    #: presets. Empty is the C++ SDK of the wheel. Not to be confused with what exports.
    source: str = ""
    preset: str = ""


@dataclass(frozen=True, slots=True)
class Sdk:
    """Which ExecuTorch a native runner is to be built against; empty is farm's own."""

    version: str = ""
    #: The toolchain's environment under FARM_HOME, where it was installed on this host: two
    #: builds may call themselves by one version.
    environment: str = ""
    #: As in Toolchain.
    source: str = ""
    preset: str = ""


@dataclass(frozen=True, slots=True)
class ToolchainVersions:
    """Resolved versions of what exported an artifact."""

    python: str
    torch: str
    executorch: str
    torchao: str


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Facts about an exported model that its users need without opening it."""

    vocab_size: int
    layers: int
    parameters: int
    max_context: int
    max_seq: int
    bos_id: int | None
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The manifest of one export: the unit that plans, baselines and gc refer to."""

    key: str
    model: str
    recipe: str
    toolchain: str
    #: The program.
    pte: ObjectRef
    #: External weights; None when they are inside the program.
    data: ObjectRef | None
    #: A `tokenizer.json`; None for a prebuilt artifact without one.
    tokenizer: ObjectRef | None
    #: Jinja template of the chat format; None when the model has none.
    chat_template: str | None
    metadata: ModelMetadata
    backend: str
    #: True when logits can be compared with an eager reference (False for a prebuilt artifact).
    has_reference: bool = True


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Ask for one artifact."""

    model: ModelSource
    recipe: Recipe
    toolchain: Toolchain


@dataclass(frozen=True, slots=True)
class Delegation:
    """How much of the lowered graph runs in a backend, counted in operators."""

    delegated: int
    total: int


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One tensor as it stands in a written artifact, against its source in the checkpoint."""

    name: str
    #: Width of its integers; None where it is stored as float32.
    bits: int | None
    #: Root of the squared differences over the root of the source's squares.
    error: float | None = None
    #: How much of the source it holds by least squares; 1 is all of it.
    gain: float | None = None
    #: Greatest difference of one weight, in steps of its group's ideal scale.
    steps: float | None = None
    #: Greatest relative difference of a stored scale from its group's ideal one.
    scale_error: float | None = None
    #: Relative rounding of a stored scale, and of the source's own numbers.
    scale_rounding: float = 0.0
    source_rounding: float = 0.0
    #: Scales were searched for, and may cut the greatest weights of a group.
    searched: bool = False
    #: Why there are no figures; empty where there are.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """One finished export, from the cache or not."""

    bundle: Bundle
    versions: ToolchainVersions
    #: Wall and CPU seconds (user + sys, children included) and peak RSS of the export itself;
    #: kept from the original export when this one came from the cache.
    seconds: float
    cpu_s: float
    peak_rss_bytes: int
    #: None where it can't be counted (a prebuilt artifact).
    delegation: Delegation | None
    #: Fully qualified names of Linears that the recipe should have quantised and did not.
    unquantised: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cache_hit: bool = False
    #: The toolchain's environment, as in `Sdk`; empty where farm's own exported.
    environment: str = ""
    replay: LayerReplay | None = None
    #: Why there is none; empty where there is one.
    no_replay: str = ""
    #: Every weight of the artifact, read back from the written files.
    weights: tuple[TensorCheck, ...] = ()
    #: Why none was read back; empty where they were.
    no_weights: str = "this artifact came without its weights' sources"

    def sdk(self, toolchain: Toolchain) -> Sdk:
        """What a runner for this artifact is to be built against."""
        version = self.versions.executorch if self.environment else ""
        return Sdk(version, self.environment, toolchain.source, toolchain.preset)


@dataclass(frozen=True, slots=True)
class LogitsPass:
    """Teacher-forced tokens fed chunk by chunk from position 0.

    After every chunk the last token's logits are one row: `[1, 1, 1]` is the decode path,
    `[16, 128]` the prefill path, with rows for positions 15 and 143.
    """

    name: str
    chunks: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Index of the token whose logits each row holds."""
        ends, total = [], 0
        for chunk in self.chunks:
            total += chunk
            ends.append(total - 1)
        return tuple(ends)


#: Raw rows, their compact form, or what the link to the device allows.
LogitsForm = Literal["auto", "whole", "compact"]


@dataclass(frozen=True, slots=True)
class LogitsRef:
    """Raw float32 little-endian logits of shape [rows, cols] in the content store."""

    object: ObjectRef
    rows: int
    cols: int
    #: The sha256 of the raw logits where `object` is their compact form; empty where it is they.
    whole_sha256: str = ""

    @property
    def compact(self) -> bool:
        """Whether most rows are there in part only; see farm/judge/compact.py."""
        return bool(self.whole_sha256)

    @property
    def identity(self) -> str:
        """The sha256 of the raw logits."""
        return self.whole_sha256 or self.object.sha256


@dataclass(frozen=True, slots=True)
class CanaryProgram:
    """A small fp32 program and what PyTorch computes for it: what every device is checked by."""

    pte: ObjectRef
    tokens: tuple[int, ...]
    #: A row for each position.
    expected: LogitsRef
    cache_hit: bool = False


@dataclass(frozen=True, slots=True)
class LayerReplay:
    """One layer of an artifact as a program that is fed what the layer gets in the model.

    The recorded inputs are its embedding table: id i is the input at position i of the built-in
    text. What it gives in place of logits is the residual stream after the layer, inputs included.
    """

    key: str
    #: Counted from 0.
    layer: int
    pte: ObjectRef
    #: Residual stream before the layer; a row for each position.
    inputs: LogitsRef
    #: What PyTorch adds to it, with weights and activations as the recipe has them.
    added: LogitsRef

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids that feed the inputs in order."""
        return tuple(range(self.inputs.rows))


#: Name of the first event of a task that has its host: what it takes is counted from there. Shown
#: nowhere.
BEGUN = "begun"


@dataclass(frozen=True, slots=True)
class StageEvent:
    """Progress of an export or reference, for people."""

    name: str
    index: int
    count: int
    elapsed_s: float
    detail: str = ""
    #: Bytes of a download; None outside one.
    done_bytes: int | None = None
    total_bytes: int | None = None
