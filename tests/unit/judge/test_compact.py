"""Cells whose device sent its logits in part: judged as whole ones, or undecided, never let off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from farm.core.artifact import LogitsRef
from farm.core.hostrun import HostRunResult
from farm.core.judgement import Judgement
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.compact import CompactLogits
from farm.judge.correctness import StageLogits
from farm.judge.logits import Logits, Matrix
from tests.unit.judge import builders
from tests.unit.judge.builders import TEXT, Case, disturbed, language


def compacted(rows: Matrix, whole: int = 16, parts: int = 64) -> CompactLogits:
    """What a device makes of its rows."""
    count, cols = rows.shape
    kept = tuple(k * (count - 1) // (whole - 1) for k in range(whole))
    others = [index for index in range(count) if index not in kept]
    ids = np.array([sorted(np.argsort(-rows[i])[:parts]) for i in others], np.uint32)
    sums = np.full((len(others), parts), -np.inf)
    for place, index in enumerate(others):
        for one in set(range(cols)) - set(ids[place].tolist()):
            bucket = one * parts // cols
            sums[place, bucket] = np.logaddexp(sums[place, bucket], float(rows[index, one]))
    logits = np.array([rows[i][ids[place]] for place, i in enumerate(others)])
    return CompactLogits((count, cols), kept, rows[list(kept)], sums, ids, logits)


def in_part(case: Case, parts: int = 64) -> StageLogits:
    """The case's logits, of which the device sent those of the decode path in part."""
    stages = {stage: dict(paths) for stage, paths in case.logits().items()}
    decode = stages["device_pte"]["decode"]
    assert not isinstance(decode.values, CompactLogits)
    stages["device_pte"]["decode"] = Logits(compacted(decode.values, parts=parts), decode.positions)
    return stages


def elsewhere() -> Case:
    """A healthy device whose bits need not be the host's."""
    logits = language()[0]
    quantised = disturbed(logits, 0.3, 2)
    host = disturbed(quantised, 0.1, 3)
    case = Case(quantised=quantised, host=host, device=disturbed(host, 0.1, 4))
    case.host_sha = "b" * 64
    return case


def judged(case: Case, parts: int = 64) -> Judgement:
    return judge_cell(case.task(), in_part(case, parts), generated_text=TEXT)


def test_a_healthy_device_passes_and_says_what_was_there() -> None:
    whole, part = builders.judge(elsewhere()), judged(elsewhere())
    assert (whole.outcome, part.outcome) == ("passed", "passed"), part.reason
    assert "compact" not in str(whole.conditions)
    assert "in the compact form (host_pte, decode: 16 of" in part.conditions["logits"]
    assert whole.correctness is not None
    assert part.correctness is not None
    for one, other in zip(whole.correctness.stages, part.correctness.stages, strict=True):
        assert (one.from_, one.to, one.path) == (other.from_, other.to, other.path)
        assert one.top1_agreement == other.top1_agreement
        assert one.first_divergence == other.first_divergence
        if one.kl_mean:
            assert other.kl_mean is not None
            assert abs(other.kl_mean / one.kl_mean - 1) < 0.1


def test_a_device_that_computes_wrongly_fails_all_the_same() -> None:
    case = elsewhere()
    assert case.device is not None
    case.device = (case.device * np.float32(1.3)).astype(np.float32)
    assert (builders.judge(case).outcome, judged(case).outcome) == ("failed", "failed")


def test_a_form_that_hides_too_much_decides_nothing() -> None:
    judgement = judged(elsewhere(), parts=1)
    assert judgement.outcome == "inconclusive"
    assert "set `correctness: {logits: whole}`" in judgement.reason


def test_where_the_bits_must_be_equal_a_part_of_others_fails() -> None:
    case = elsewhere()
    case.host_sha = "a" * 64
    assert judged(case).outcome == "failed"


def test_a_form_of_the_hosts_own_bytes_is_these() -> None:
    """A site whose store doesn't hold the host's logits sends its own in part."""
    rows = LogitsRef(builders.obj("rows"), 3, 5)
    part = LogitsRef(builders.obj("part"), 3, 5, rows.object.sha256)
    task = Case().task()
    launches = (replace(task.run.launches[0], logits=(("decode", part),)),)
    assert task.host is not None
    host: HostRunResult = replace(task.host, logits=(("decode", rows),))
    task = replace(task, run=replace(task.run, launches=launches), host=host)
    opened: list[LogitsRef] = []

    def open_ref(ref: LogitsRef) -> Matrix:
        opened.append(ref)
        return np.zeros((ref.rows, ref.cols), np.float32)

    stages = stage_logits(task, open_ref)
    assert "decode" in stages["device_pte"]
    assert part not in opened
    other = replace(part, whole_sha256="f" * 64)
    launches = (replace(task.run.launches[0], logits=(("decode", other),)),)
    stage_logits(replace(task, run=replace(task.run, launches=launches)), open_ref)
    assert other in opened
