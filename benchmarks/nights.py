"""Real nights on this machine: no loss where there is none, and losses that are there found.

Two arms run side by side, as `farm nightly` does it. In a clean night the candidate is the baseline
with some bytes after its end: the same work, another file. A slower artifact has layers that change
nothing (their output projections are zero) and cost what a layer costs: 21 or 22 layers where the
baseline has 20. A quota takes CPU time from the candidate's processes alone, by a control group.

    python benchmarks/nights.py SERIES... [--nights N] [--folder DIR]
    python benchmarks/nights.py --list

Each night's verdicts go into DIR/SERIES.jsonl as soon as it ends, and a series goes on where it was
left. DIR (default: build/nights) holds a FARM_HOME of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LAYERS, DIM, HIDDEN, HEADS, VOCABULARY = 20, 128, 384, 4, 512
#: One core's share that a quota leaves, by the slowdown that it makes.
PERIOD_US = 10_000
#: End of the name of a candidate's work folder.
CANDIDATE = re.compile(r"-[0-9a-f]{12}-\d+-\d+$")
#: Half of one core, in turns of so many seconds.
BUSY_S = 0.05


@dataclass(frozen=True)
class Series:
    """Nights of one kind."""

    about: str
    nights: int
    #: Layers of the candidate beyond the baseline's; None: smollm2 in both arms.
    extra: int | None = 0
    #: CPU time that is taken from the candidate, as a share.
    taken: float = 0.0
    busy: bool = False


SERIES = {
    "clean": Series("configs/tiny.yaml, equal arms", 20),
    "clean-smollm2": Series("configs/llama_q4.yaml, equal arms", 8, extra=None),
    "artifact-5": Series("an artifact that is 5 % slower", 10, extra=1),
    "artifact-10": Series("an artifact that is 10 % slower", 10, extra=2),
    "artifact-10-busy": Series("the same beside a busy loop at half duty", 10, extra=2, busy=True),
    "quota-5": Series("5 % less CPU time for the candidate", 10, taken=0.05),
    "quota-10": Series("10 % less CPU time for the candidate", 10, taken=0.10),
}


def main() -> int:
    """Run series and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("series", nargs="*", choices=[[], *SERIES], default=[])
    parser.add_argument("--nights", type=int, help="instead of the series' own number")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "nights")
    parser.add_argument("--budget-s", type=float, default=30.0)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list or not options.series:
        for name, series in SERIES.items():
            print(f"{name:<18}{series.nights:>3} nights  {series.about}")
        return 0
    # Ended in the middle, it takes its busy loop and its control group with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    figures = {}
    for name in options.series:
        lab = Lab(options.folder.resolve(), options.budget_s)
        rows = lab.series(name, options.nights or SERIES[name].nights)
        figures[name] = told(name, rows)
    slower = [name for name in figures if SERIES[name].extra or SERIES[name].taken]
    clean = [row for name, row in figures.items() if name not in slower]
    met = all(row["regressed"] == 0 for row in clean)
    print(
        json.dumps(
            {"benchmark": "nights", "figures": figures, "ratios": {}, "targets": {}, "met": met}
        )
    )
    return 0 if met else 1


class Lab:
    """A FARM_HOME, the artifacts of both arms, and baselines."""

    def __init__(self, folder: Path, budget_s: float) -> None:
        self.folder, self._budget_s = folder, budget_s
        folder.mkdir(parents=True, exist_ok=True)

    def series(self, name: str, nights: int) -> list[dict[str, Any]]:
        """Make the nights of a series that are missing; return all."""
        series, evidence = SERIES[name], self.folder / f"{name}.jsonl"
        done = evidence.read_text("utf-8").splitlines() if evidence.exists() else []
        rows: list[dict[str, Any]] = [json.loads(line) for line in done]
        small = series.extra is not None
        model = "tiny" if small else "smollm2"
        baseline = self._baseline(model)
        candidate = self._artifact(model, series.extra or 0)
        if not series.extra:
            same = self.folder / f"{model}-same.pte"
            same.write_bytes(candidate.read_bytes() + bytes(16))
            candidate = same
        while len(rows) < nights:
            with ExitStack() as stack:
                if series.busy:
                    stack.enter_context(busy_loop())
                if series.taken:
                    stack.enter_context(quota(self.folder, 1 - series.taken))
                row = self._night(model, candidate, ("--baseline", str(baseline)))
            rows.append(row)
            with evidence.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name} {len(rows)}/{nights}: {row['last']}", flush=True)
        return rows[:nights]

    def _night(self, model: str, pte: Path, more: Sequence[str]) -> dict[str, Any]:
        out = self.folder / "runs"
        config = {"tiny": "tiny.yaml", "smollm2": "llama_q4.yaml"}[model]
        tokenizer = self.folder / f"{model}-tokenizer.json"
        settings = {
            "models": f"[{{name: {model}, pte: {pte}, tokenizer: {tokenizer}}}]",
            "gates": "{regress: auto}",
            "workload": f"{{prefill: [128], decode: [64], budget_s: {self._budget_s:g}}}",
            "matrix": "{recipe: [xnnpack-8da4w], threads: [1]}",
            # A .pte brings no chat template: a bare question may be answered by an end at once.
            "correctness": '{tokens: 64, canary: false, prompt: "Once upon a time"}',
        }
        words = ["nightly", str(ROOT / "configs" / config), "--cluster", "none", "--live", "off"]
        words += ["--select", "transport=local", "--out", str(out), *more]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        started = time.time()
        done = self._farm(*words)
        report = json.loads((out / "latest" / "report.json").read_text("utf-8"))
        if report["exit_code"] != done.returncode:
            raise SystemExit(f"the night made no report: {done.stdout}{done.stderr}"[-2000:])
        (result,) = report["results"]
        compared = result["baseline"] or {"metrics": [], "verdict": None}
        kept = ("metric", "verdict", "ratio", "ci95", "bound", "p", "pairs", "confirmed")
        return {
            "at": report["started_at"],
            "seconds": round(time.time() - started, 1),
            "load": os.getloadavg()[0],
            "exit": done.returncode,
            "outcome": result["outcome"],
            "verdict": compared["verdict"],
            "way": result["conditions"].get("turns"),
            "instructions": result["conditions"].get("instructions"),
            "metrics": [{key: m.get(key) for key in kept} for m in compared["metrics"]],
            "second": result["second"] is not None,
            "trust": sorted({p["trust"] for p in result["performance"]}),
            "last": report["verdict_line"],
        }

    def _farm(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "FARM_HOME": str(self.folder / "home")}
        argv = [sys.executable, "-m", "farm", *words]
        return subprocess.run(
            argv, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def _baseline(self, model: str) -> Path:
        """Report of a first night, which the others are held against."""
        path = self.folder / f"{model}-baseline.json"
        if not path.exists():
            self._night(model, self._artifact(model, 0), ("--allow-no-baseline",))
            shutil.copy(self.folder / "runs" / "latest" / "report.json", path)
        return path

    def _artifact(self, model: str, extra: int) -> Path:
        """A .pte, exported once."""
        path = self.folder / (f"{model}-{extra}.pte" if extra else f"{model}.pte")
        if path.exists():
            return path
        made = self.folder / f"export-{model}-{extra}"
        if model == "tiny":
            config, hf = "tiny.yaml", self.folder / f"checkpoint-{extra}"
            checkpoint(hf, extra)
            more = ["--set", f"models=[{{name: tiny, hf: {hf}}}]"]
        else:
            config, more = "llama_q4.yaml", []
        done = self._farm("export", str(ROOT / "configs" / config), "--copy", str(made), *more)
        if done.returncode != 0:
            raise SystemExit(f"no artifact: {done.stdout}{done.stderr}"[-3000:])
        (tokenizer,) = made.glob("*tokenizer*.json")
        shutil.copy(tokenizer, self.folder / f"{model}-tokenizer.json")
        (pte,) = made.glob("*.pte")
        shutil.copy(pte, path)
        return path


def checkpoint(folder: Path, extra: int) -> None:
    """A seeded Llama of the hub's format, with layers after its own that change nothing."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        drawn = random.standard_normal((rows, columns)) / np.sqrt(columns)
        return np.asarray(drawn, np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(VOCABULARY, DIM),
        "lm_head.weight": matrix(VOCABULARY, DIM),
        "model.norm.weight": np.ones(DIM, np.float32),
    }
    for layer in range(LAYERS + extra):
        name = f"model.layers.{layer}."
        shapes = {
            "self_attn.q_proj": (DIM, DIM), "self_attn.k_proj": (DIM, DIM),
            "self_attn.v_proj": (DIM, DIM), "self_attn.o_proj": (DIM, DIM),
            "mlp.gate_proj": (HIDDEN, DIM), "mlp.up_proj": (HIDDEN, DIM),
            "mlp.down_proj": (DIM, HIDDEN),
        }  # fmt: skip
        for part, shape in shapes.items():
            quiet = layer >= LAYERS and part in ("self_attn.o_proj", "mlp.down_proj")
            tensors[f"{name}{part}.weight"] = matrix(*shape) * np.float32(not quiet)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{part}.weight"] = np.ones(DIM, np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": DIM,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS + extra,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "float32",
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))


def byte_tokenizer() -> dict[str, Any]:
    """A tokenizer of bytes, as the `tokenizers` library writes it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<unk>", "<s>", "</s>", *letters]
    made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    document: dict[str, Any] = json.loads(made.to_str())
    return document


@contextmanager
def busy_loop() -> Iterator[None]:
    """Half of one core, while it lasts."""
    turn = f"end = time.time() + {BUSY_S}\n while time.time() < end: pass\n time.sleep({BUSY_S})"
    text = f"import time\nwhile True:\n {turn}"
    process = subprocess.Popen([sys.executable, "-c", text])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def quota(folder: Path, share: float) -> Iterator[None]:
    """Leave the candidate's runner a share of one core; its processes are looked for as they come.

    Needs the control groups of version 1, and root.
    """
    group = Path("/sys/fs/cgroup/cpu") / f"farm-nights-{os.getpid()}"
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
    over = threading.Event()
    work = str(folder / "home" / "device" / "work") + "/"

    def look() -> None:
        while not over.wait(0.05):
            for entry in os.scandir("/proc"):
                if entry.name.isdigit() and _is_candidate(entry.path, work):
                    try:
                        (group / "cgroup.procs").write_text(entry.name)
                    except OSError:
                        continue  # it has ended

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        group.rmdir()


def _is_candidate(process: str, work: str) -> bool:
    """Whether a process is a runner in a candidate's folder: the baseline's has one number more."""
    try:
        place = os.readlink(f"{process}/cwd")
        name = Path(f"{process}/comm").read_text().strip()
    except OSError:
        return False
    return name == "farm-runner" and place.startswith(work) and bool(CANDIDATE.search(place))


def told(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Print one series; return its counts."""
    verdicts = Counter(row["verdict"] for row in rows)
    metrics: dict[str, Counter[str]] = {}
    bounds: dict[str, list[float]] = {}
    for row in rows:
        for one in row["metrics"]:
            metrics.setdefault(one["metric"], Counter())[one["verdict"]] += 1
            if one["bound"] is not None:
                bounds.setdefault(one["metric"], []).append(abs(1 - one["bound"]))
    print(f"{name}: {len(rows)} nights, {SERIES[name].about}: {dict(verdicts)}")
    for metric, counts in metrics.items():
        held = sorted(bounds.get(metric, []))
        text = f", held to {held[0]:.1%} to {held[-1]:.1%}" if held else ""
        print(f"  {metric:<18}{dict(counts)}{text}")
    return {
        "nights": len(rows),
        "regressed": verdicts["REGRESSED"],
        "verdicts": dict(verdicts),
        "in_turn": sum(str(row["way"]).startswith("windows in turn") for row in rows),
        "metrics": {metric: dict(counts) for metric, counts in metrics.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
