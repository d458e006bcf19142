"""External weights from the command line to the device: what is pushed, checked and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.paths import store_root
from farm.store.objects import ContentStore
from tests.command import CONFIGS, Farm

pytestmark = pytest.mark.export

TINY = str(CONFIGS / "tiny.yaml")
BOTH = (
    *("--set", "recipes={longer: {base: xnnpack-8da4w-ptd, max_context: 1024, max_seq: 1024}}"),
    *("--set", "matrix.recipe=[xnnpack-8da4w-ptd, longer]", "--live", "off"),
)


def test_another_context_of_the_same_weights_pushes_the_program_only(
    new_home: Path, tmp_path: Path
) -> None:
    # A device of its own: on another test's, the layer that is replayed may be there already.
    farm = Farm(new_home, tmp_path)
    only_local = ("--select", "transport=local", "--cluster", "none", "--quick")
    done = farm("run", TINY, *BOTH, *only_local, limit_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "+ 106 KiB weights" in done.stdout
    report = farm.report()
    short, longer = (result["artifact"] for result in report["results"])
    assert short["data_sha256"] == longer["data_sha256"]
    assert short["sha256"] != longer["sha256"]
    entries = json.loads(farm("store", "list", "--json").stdout)["entries"]
    programs = {
        entry["recipe"]: sum(
            ContentStore(store_root(farm.home)).path(sha256).stat().st_size
            for name, sha256 in entry["objects"]
            if name in ("model.pte", "replay.pte")
        )
        for entry in entries
    }
    sizes = (programs["xnnpack-8da4w-ptd"], programs["longer"])
    pushed = sorted(result["pushed_bytes"] for result in report["results"])
    assert pushed[0] in sizes, "the program, and the layer that is replayed"
    assert pushed[1] >= min(sizes) + short["data_size_bytes"]
    for result in report["results"]:
        stages = result["correctness"]["stages"]
        last = [s for s in stages if s["from"] == "host_pte"]
        assert {s["path"] for s in last} == {"decode", "prefill"}
        assert all(s["bit_equal"] for s in last)
        assert result["outcome"] == "passed"
    shared = [e for e in entries if longer["data_sha256"] in dict(e["objects"]).values()]
    assert {entry["recipe"] for entry in shared} == {"xnnpack-8da4w-ptd", "longer"}

    assert farm("export", TINY, *BOTH, "--copy", "out").returncode == 0
    pte, ptd = (tmp_path / "out" / f"tiny-llama-longer.{suffix}" for suffix in ("pte", "ptd"))
    quickly = ("-p", "16", "-n", "8", "-l", "1", "--live", "off")
    done = farm("bench", str(pte), "--data", str(ptd), *quickly, "--json")
    assert done.returncode == 0, done.stderr
    rates = {p["metric"]: p["median"] for p in json.loads(done.stdout)["performance"]}
    assert rates["tg8"] > 0
    done = farm("bench", str(pte), *quickly)
    assert done.returncode == 3
    assert "give its .ptd with --data" in done.stderr
    words = tmp_path / "out" / "tiny-llama-tokenizer.json"
    prebuilt = f"[{{name: ours, pte: {pte}, data: {ptd}, tokenizer: {words}}}]"
    alone = ("--set", f"models={prebuilt}", "--set", "gates={}")
    done = farm("run", TINY, *only_local, "--live", "off", *alone)
    (result,) = farm.report()["results"]
    assert result["artifact"]["data_sha256"] == longer["data_sha256"], done.stdout
    assert {p["metric"] for p in result["performance"]} >= {"pp128", "tg128"}
