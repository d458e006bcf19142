"""What an export makes and what correctness starts from: recipes, bundles, references.

Everything here crosses processes (Ray tasks, the toolchain's worker) and is plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["xnnpack", "portable", "vulkan", "coreml", "qnn", "openvino", "mps", "ggml"]
LinearQuantization = Literal["none", "8da4w", "4w", "int8"]
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


@dataclass(frozen=True, slots=True)
class Sdk:
    """Which ExecuTorch a native runner is to be built against; empty is farm's own."""

    version: str = ""
    #: The toolchain's environment under FARM_HOME, where it was installed on this host: two
    #: builds may call themselves by one version.
    environment: str = ""


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

    @property
    def sdk(self) -> Sdk:
        """What a runner for this artifact is to be built against."""
        return Sdk(self.versions.executorch, self.environment) if self.environment else Sdk()


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


@dataclass(frozen=True, slots=True)
class LogitsRef:
    """Raw float32 little-endian logits of shape [rows, cols] in the content store."""

    object: ObjectRef
    rows: int
    cols: int


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


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """Ask for token ids and eager logits of a text."""

    model: ModelSource
    recipe: Recipe
    toolchain: Toolchain
    bundle: Bundle
    #: `builtin`, or a path of a UTF-8 text file.
    text: str
    #: Length of the teacher-forced text in tokens, BOS included.
    tokens: int
    #: The user's message of the generated text.
    prompt: str
    #: Lengths in tokens of the texts that runners without ids are measured with.
    text_lengths: tuple[int, ...] = ()
    #: Exactly these ids instead of the text: an answer that is judged.
    forced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceCheck:
    """How far a source that shares no code with farm agrees with our reading of a checkpoint."""

    #: `anchor` (logits kept with farm) or `transformers`; empty where nothing was compared.
    by: str = ""
    #: Positions compared.
    tokens: int = 0
    #: Whether the source makes the same token ids of the text; None where it has no tokenizer.
    ids_equal: bool | None = None
    #: Greatest difference of eager fp32 logits to the source's.
    max_abs_error: float | None = None
    #: Why nothing was compared, or where token ids part.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """Token ids for the device and eager logits to judge it by."""

    #: Teacher-forced text, length `tokens`.
    tokens: tuple[int, ...]
    #: Chat-formatted prompt.
    prompt: tuple[int, ...]
    stop_ids: tuple[int, ...]
    #: Rows for every position; None for a prebuilt artifact.
    eager_fp32: LogitsRef | None
    eager_quantised: LogitsRef | None
    source: SourceCheck = SourceCheck(reason="this artifact has no weights to read again")
    #: The chat-formatted prompt as text.
    prompt_text: str = ""
    #: By length in tokens, for runners without ids.
    texts: tuple[tuple[int, str], ...] = ()
    cache_hit: bool = False


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
