"""transformers on the same weights: logits and token ids that no code of farm had a part in.

It loads hub folders and GGUF files itself. A seeded model has no file: its tensors are handed over
as they are, and what is independent is the arithmetic.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing as npt

from models.checkpoint import Checkpoint, layer_tensors, outer_tensors
from models.exporting.memory import available_bytes
from models.sources.gguf import GgufCheckpoint
from models.sources.hf import HfCheckpoint
from models.sources.seeded import SeededCheckpoint
from models.sources.tokenizer_files import rule_files

#: Bytes a parameter of a model that transformers holds in float32, buffers included.
_BYTES_A_PARAMETER = 4.4
#: Names in transformers' Llama of what ours are called.
_NAMES = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_OUTER = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What transformers gave."""

    #: float32 [tokens, vocabulary of its own].
    logits: npt.NDArray[numpy.float32]
    #: Its ids of the text, as many as were asked about; None where it has no tokenizer.
    ids: tuple[int, ...] | None
    #: `transformers 5.23.0, LlamaForCausalLM`.
    name: str


def cannot_ask(checkpoint: Checkpoint) -> str:
    """Say why transformers can't be asked about a model; empty where it can be tried."""
    if importlib.util.find_spec("transformers") is None:
        return (
            "transformers is not installed beside this exporter, so nothing independent"
            " checks how the checkpoint is read: pip install transformers"
        )
    if not isinstance(checkpoint, HfCheckpoint | GgufCheckpoint | SeededCheckpoint):
        return "transformers is asked for folders of the hub's format and GGUF files only"
    adapted = isinstance(checkpoint, HfCheckpoint) and checkpoint.adapter is not None
    if adapted and importlib.util.find_spec("peft") is None:
        return (
            "peft is not installed beside this exporter, so nothing independent checks how the"
            " adapter is added: pip install peft"
        )
    need, have = _BYTES_A_PARAMETER * checkpoint.config.parameters, available_bytes()
    if need > have:
        return (
            f"transformers needs about {need / 2**30:.1f} GiB for this model in float32,"
            f" {have / 2**30:.1f} GiB are free"
        )
    return ""


def ask(checkpoint: Checkpoint, text: str, tokens: Sequence[int]) -> Answer:
    """Let transformers compute the logits of our ids, and make its own of the text.

    Raises:
        Exception: Whatever transformers raises where it can't load the model.
    """
    import torch
    import transformers

    model, ids = _loaded(checkpoint, text)
    model = model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)])).logits[0]
    return Answer(
        logits.float().numpy(),
        None if ids is None else tuple(ids[: len(tokens)]),
        f"transformers {transformers.__version__}, {type(model).__name__}",
    )


def _loaded(checkpoint: Checkpoint, text: str) -> tuple[Any, list[int] | None]:
    import torch
    from transformers import AutoModelForCausalLM

    if isinstance(checkpoint, SeededCheckpoint):
        return _seeded(checkpoint), None
    if isinstance(checkpoint, GgufCheckpoint):
        folder, more = checkpoint.path.parent, {"gguf_file": checkpoint.path.name}
    else:
        assert isinstance(checkpoint, HfCheckpoint)
        folder, more = checkpoint.folder, dict[str, str]()
    ids = _ids(checkpoint.given_tokenizer, folder, text, more)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, attn_implementation="eager", **more
    )
    if isinstance(checkpoint, HfCheckpoint) and checkpoint.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, checkpoint.adapter.folder).merge_and_unload()
    return model, ids


def _ids(given: Path | None, folder: Path, text: str, more: dict[str, str]) -> list[int] | None:
    """Its ids of a text; None by a given file that it can't read alone."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # Of a given file its own folder says what it is; alone it is taken as it is.
    rules = {rule.name for rule in rule_files(given)} if given is not None else set()
    ruled = {"tokenizer_config.json", "config.json"} & rules
    if given is not None and given.name == "tokenizer.json" and ruled:
        folder, given, more = given.parent, None, {}
    if given is None:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **more)
    elif given.suffix == ".json":
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(given))
    else:
        return None
    return list(tokenizer(text)["input_ids"])


def _seeded(checkpoint: SeededCheckpoint) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = checkpoint.config
    config = LlamaConfig(
        vocab_size=ours.vocab,
        hidden_size=ours.dim,
        intermediate_size=ours.hidden,
        num_hidden_layers=ours.layers,
        num_attention_heads=ours.heads,
        num_key_value_heads=ours.kv_heads,
        head_dim=ours.head_dim,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_theta},
        max_position_embeddings=ours.max_context,
        tie_word_embeddings=ours.tied,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    names = list(outer_tensors(ours))
    for layer in range(ours.layers):
        names += layer_tensors(ours, layer)
    model.load_state_dict({hub_name(name): checkpoint.tensor(name) for name in names})
    return model


def hub_name(name: str) -> str:
    """Name that transformers' Llama has for a tensor; written apart from what reads hub folders."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("layers."):
        _, layer, rest = stem.split(".", 2)
        return f"model.layers.{layer}.{_NAMES[rest]}.{kind}"
    return f"{_OUTER[stem]}.{kind}"
