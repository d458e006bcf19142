"""How many launches are enough, by simulation: the intervals still hold what they promise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from farm.core.rules.family import SURE
from farm.core.rules.interval import (
    MAX_SPREAD,
    launch_logs,
    mean_interval,
    pair_logs,
    pair_statistics,
    spread,
    t975,
    t_tail,
)
from farm.core.rules.launches import cell_launches, least_launches, too_long, without_baseline
from farm.core.rules.stopping import decide, rates_by_launch, undecided
from farm.core.runner import OWN
from farm.core.runtime import (
    Arm,
    BaselineArm,
    DeviceJob,
    LaunchPolicy,
    LaunchRequest,
    LaunchResult,
    Measure,
    Sample,
    Stop,
)
from farm.core.spec import Gate, Require, RunSpec, Workload
from tests.unit.core.builders import BUILD, HELLO, run_spec, tokenized

MEASURE = Measure("tg64", 0, 64, 0, 3, 1)
OURS = LaunchRequest(1, measures=(MEASURE,))
THEIRS = LaunchRequest(1, measures=(MEASURE,), arm="baseline")


def launched(rate: float, arm: Arm = "candidate", *, inside: float = 0.0) -> LaunchResult:
    """A launch whose repetitions lie around one rate; its warm-up is far off."""
    rates = [rate * 9, rate * math.exp(-inside), rate, rate * math.exp(inside)]
    samples = tuple(
        Sample("tg64", 0, max(0, n - 1), n == 0, 64, 64 / value) for n, value in enumerate(rates)
    )
    return LaunchResult(
        HELLO, samples, (), None, None, None, None, threads=1, affinity="none",
        regime="warm", arm=arm,
    )  # fmt: skip


def policy(*, paired: bool = False, **changes: object) -> LaunchPolicy:
    values: dict[str, object] = {
        "block": (OURS, THEIRS, THEIRS, OURS) if paired else (OURS,),
        "least": 3,
        "most": 40,
        "budget_s": 1000.0,
        "precision": 0.02,
        "regress": 0.02,
    }
    return LaunchPolicy(**(values | changes))  # type: ignore[arg-type]


def simulate(rule: LaunchPolicy, launches: Iterator[LaunchResult]) -> list[LaunchResult]:
    """Launch until the rule says that it is enough."""
    done: list[LaunchResult] = []
    while decide(rule, done, float(len(done))) is None:
        done += [next(launches) for _ in rule.block]
    return done


def test_it_stops_when_the_interval_is_narrow() -> None:
    quiet = [launched(100 + n % 2 * 0.1) for n in range(3)]
    stop = decide(policy(), quiet, 3.0)
    assert stop == Stop("precise", "3 launches: every rate is known to ±2.0%")
    assert decide(policy(), quiet[:2], 2.0) is None


def test_noise_asks_for_more_until_the_most() -> None:
    wild = [launched(100 + 20 * (n % 3)) for n in range(40)]
    assert decide(policy(), wild[:10], 10.0) is None
    stop = decide(policy(), wild, 40.0)
    assert stop is not None
    assert stop.reason == "most"
    assert "tg64 is known to ±" in stop.detail


def test_no_block_begins_that_would_not_end_within_the_budget() -> None:
    wild = [launched(100), launched(140)]
    assert decide(policy(budget_s=30.0), wild, 19.9) is None
    stop = decide(policy(budget_s=30.0), wild, 20.1)
    assert stop is not None
    assert stop.reason == "budget"
    assert stop.detail.startswith("2 launches, 30 s spent: tg64")


@pytest.mark.parametrize(("ratio", "ends"), [(0.9, False), (1.0, True)])
def test_what_confirms_ends_early_where_no_loss_is_left_and_only_there(
    ratio: float, ends: bool
) -> None:
    done = [
        launched((ratio if arm == "candidate" else 1) * (100 + n % 3 * 0.1), arm)
        for n in range(5)
        for arm in ("candidate", "baseline", "baseline", "candidate")
    ]
    first = policy(paired=True)
    assert decide(first, done, 8.0) is not None
    second = replace(first, confirms=True)
    assert (decide(second, done, 8.0) is not None) == ends
    stop = decide(second, done, 999.0)
    assert stop is not None
    assert stop.reason == ("precise" if ends else "budget")


def test_a_bound_inside_the_interval_needs_more() -> None:
    quiet = [launched(100 + n % 2 * 0.1) for n in range(3)]
    assert decide(policy(bounds=(("tg64", 100.0),)), quiet, 3.0) is None
    assert decide(policy(bounds=(("tg64", 90.0), ("pp64", 100.0))), quiet, 3.0) is not None


def test_pairs_decide_by_the_ratio_not_by_the_rates() -> None:
    """Both arms halve from block to block: their own intervals are useless, the ratio isn't."""
    done = []
    for block in range(2):
        a, b = 100 / 2**block, 100 / 2**block
        done += [launched(a), launched(b, "baseline"), launched(b, "baseline"), launched(a)]
    stop = decide(policy(paired=True, precision=0.001), done, 8.0)
    assert stop is not None
    assert stop.detail == "4 launches: every ratio is on one side of 0.980"


def test_from_eight_launches_on_luck_is_not_asked_at_every_launch() -> None:
    done = [*[launched(96.0), launched(104.0)] * 4, *[launched(100.0)] * 8]
    enough = [n for n in range(2, 17) if not undecided(policy(), done[:n])]
    stops = [n for n in range(2, 17) if decide(policy(), done[:n], 1.0) is not None]
    assert enough == [15, 16]
    assert stops == [16]


def test_scatter_of_a_few_launches_asks_for_more_before_it_is_called_noise() -> None:
    loose = policy(precision=0.5)
    few = [launched(rate) for rate in (93.0, 100.0, 107.0)]
    assert undecided(loose, few) == ["tg64 scatters by 7%, which 3 launches can't tell from 5%"]
    calm = [*few, *[launched(100.0)] * 5]
    assert decide(loose, calm[:4], 4.0) is None
    assert decide(loose, calm, 8.0) == Stop("precise", "8 launches: every rate is known to ±50.0%")
    noisy = (few * 6)[:16]
    assert decide(loose, noisy[:15], 15.0) is None
    assert decide(loose, noisy, 16.0) == Stop(
        "precise", "16 launches: every rate is known to ±50.0%"
    )


@pytest.mark.parametrize(
    ("scatter", "at_once", "flagged"), [(0.035, (0.08, 1.0), (0.0, 0.02)), (0.1, (0, 1), (0.7, 1))]
)
def test_a_flag_of_scatter_is_not_the_luck_of_three_launches(
    scatter: float, at_once: tuple[float, float], flagged: tuple[float, float]
) -> None:
    """Of a device below the bound and of one far above it: the flag comes seldom, or mostly."""
    random = np.random.default_rng(23)
    three, end, trials = 0, 0, 400
    for _ in range(trials):
        launches = (launched(100 * math.exp(scatter * random.standard_normal())) for _ in range(99))
        done = simulate(policy(precision=0.5), launches)
        found = [rates_by_launch(part, "tg64", "candidate") for part in (done[:3], done)]
        three += (spread(found[0]) or 0) > MAX_SPREAD
        end += (spread(found[1]) or 0) > MAX_SPREAD
    assert at_once[0] <= three / trials <= at_once[1]
    assert flagged[0] <= end / trials <= flagged[1]


def test_a_window_without_a_rate_does_not_keep_a_cell_launching() -> None:
    empty = LaunchResult(HELLO, (), (), None, None, None, None, threads=1, affinity="none")
    assert decide(policy(), [empty] * 3, 3.0) is not None


@pytest.mark.parametrize("noise", [0.008, 0.02, 0.05])
def test_an_interval_that_was_watched_still_covers(noise: float) -> None:
    """Against the precision of 2 %: quiet, in between, and so noisy that the most is reached."""
    random = np.random.default_rng(17)
    hits, naive, trials = 0, 0, 600
    for _ in range(trials):
        launches = (launched(100 * math.exp(noise * random.standard_normal())) for _ in range(99))
        logs = launch_logs(rates_by_launch(simulate(policy(), launches), "tg64", "candidate"))
        mean, half = mean_interval(logs, looked=True)
        assert half is not None
        hits += abs(mean - math.log(100)) <= half
        naive += abs(mean - math.log(100)) <= (mean_interval(logs).half or 0)
    assert hits / trials >= 0.92
    assert naive <= hits


def block(random: np.random.Generator, truth: float, drift: float) -> Iterator[LaunchResult]:
    """A B B A ... on a device that drifts and whose launches scatter by 3 %."""
    level = 0.0
    while True:
        for request in (OURS, THEIRS, THEIRS, OURS):
            level += drift
            centre = 100 * (truth if request.arm == "candidate" else 1.0)
            shift = level + 0.03 * float(random.standard_normal())
            yield launched(centre * math.exp(shift), request.arm)


@pytest.mark.parametrize("drift", [0.0, -0.05])
def test_nothing_changed_is_hardly_ever_called_a_regression(drift: float) -> None:
    random = np.random.default_rng(5)
    worse, trials = 0, 150
    for _ in range(trials):
        done = simulate(policy(paired=True), block(random, 1.0, drift))
        logs = pair_logs(
            rates_by_launch(done, "tg64", "candidate"), rates_by_launch(done, "tg64", "baseline")
        )
        worse += pair_statistics(logs, looked=True).tail(math.log(0.98)) <= 0.025
    assert worse / trials <= 0.02


def test_a_loss_of_ten_percent_is_found_although_the_device_drifts() -> None:
    random = np.random.default_rng(6)
    found = 0
    for _ in range(40):
        done = simulate(policy(paired=True), block(random, 0.9, -0.05))
        logs = pair_logs(
            rates_by_launch(done, "tg64", "candidate"), rates_by_launch(done, "tg64", "baseline")
        )
        found += pair_statistics(logs, looked=True).tail(math.log(0.98)) <= SURE
    assert found >= 38


def test_a_loss_goes_on_until_it_counts_in_a_whole_night() -> None:
    """Beyond the bound at 95 % is no end yet: in a night of 240 comparisons that is luck."""
    random = np.random.default_rng(3)
    lossy = list(itertools.islice(block(random, 0.93, 0.0), 40))
    looks = [lossy[:count] for count in range(8, 41, 4)]
    logs = [
        pair_logs(rates_by_launch(x, "tg64", "candidate"), rates_by_launch(x, "tg64", "baseline"))
        for x in looks
    ]
    p = [pair_statistics(found, looked=True).tail(math.log(0.98)) for found in logs]
    stops = [decide(policy(paired=True), look, 1.0) is not None for look in looks]
    assert any(SURE < value <= 0.025 for value in p)
    assert stops == [value <= SURE for value in p]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pairs_judge_nothing(count: int) -> None:
    alike = [launched(97.0), launched(100.0, "baseline"), launched(100.0, "baseline")] * count
    assert undecided(policy(paired=True), alike) == ["tg64 has too few pairs"]
    with pytest.raises(ValueError, match="judge nothing"):
        pair_statistics([-0.03] * count)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 30, 61])
@pytest.mark.parametrize("t", [-1.5, 0.0, 0.7, 3.0, 25.0])
def test_the_tail_of_students_t_is_scipys(df: int, t: float) -> None:
    assert t_tail(t, df) == pytest.approx(float(stats.t.sf(t, df)), abs=1e-12)
    assert (t_tail(math.inf, df), t_tail(-math.inf, df)) == (0.0, 1.0)


def test_equal_pairs_have_no_scatter_and_still_a_side() -> None:
    found = pair_statistics([math.log(0.9)] * 4)
    assert (found.tail(math.log(0.95)), found.tail(math.log(0.85))) == (0.0, 1.0)


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_the_interval_of_pairs_covers_whatever_the_drift(drift: float) -> None:
    random = np.random.default_rng(8)
    hits, trials = 0, 2000
    for _ in range(trials):
        turns = np.where(np.arange(6) % 2 == 0, drift, -drift)
        found = pair_statistics(list(turns + 0.03 * random.standard_normal(6)))
        hits += abs(found.mean) <= t975(found.df) * found.error
    assert 0.93 <= hits / trials <= 0.97


def test_quantiles_match_published_tables() -> None:
    assert t975(1) == pytest.approx(12.706, abs=1e-3)
    assert t975(2) == pytest.approx(4.303, abs=1e-3)
    assert t975(40) == pytest.approx(2.0211, abs=2e-4)
    assert t975(120) == pytest.approx(1.9799, abs=2e-4)
    with pytest.raises(ValueError, match="degree"):
        t975(0)


# -- which launches a cell has


def spec(**workload: object) -> RunSpec:
    return replace(
        run_spec(),
        workload=Workload(**workload),  # type: ignore[arg-type]
        gates=(Gate("decode_tok_s", ">=", 5.0), Gate("perplexity", "<=", 1.01, "host")),
        regress=0.03,
    )


def test_launches_of_a_cell_alone() -> None:
    found = cell_launches(
        spec(prefill=(64,), decode=(32, 64), cold_launches=2), tokenized(),
        threads=2, max_context=512, paired=False,
    )  # fmt: skip
    assert [(r.cold, bool(r.passes), r.arm) for r in found.once] == [
        (True, False, "candidate"), (True, False, "candidate"), (False, True, "candidate"),
    ]  # fmt: skip
    assert found.once[0].measures[0].warmup == 0
    assert found.policy is not None
    assert [m.name for m in found.policy.block[0].measures] == ["pp64", "tg32", "tg64"]
    assert found.policy.bounds == (("tg32", 5.0), ("tg64", 5.0))
    # A bound asks for an answer, not for a width.
    assert (found.policy.precision, found.policy.regress) == (None, 0.03)
    assert found.policy.judged


def test_numbers_that_nobody_judges_take_the_launches_of_the_config() -> None:
    free = cell_launches(
        replace(spec(), gates=()), tokenized(), threads=1, max_context=512, paired=False
    ).policy
    assert free is not None
    assert not free.asks
    wild = [launched(100 + 20 * (n % 3)) for n in range(4)]
    assert decide(free, wild[:2], 2.0) is None
    stop = decide(free, wild[:3], 3.0)
    assert stop == Stop("fixed", "3 launches: no gate, baseline or precision asks for more")
    assert not stop.looked


@pytest.mark.parametrize("asked", ["gate", "precision", "require", "baseline"])
def test_whoever_judges_a_speed_gets_its_launches(asked: str) -> None:
    wanted = replace(spec(precision=0.01 if asked == "precision" else None), gates=())
    if asked == "gate":
        wanted = replace(wanted, gates=(Gate("ttft_s", "<=", 1.0, None),))
    if asked == "require":
        wanted = replace(wanted, require=Require(speed=Fraction(9, 10)))
    found = cell_launches(
        wanted, tokenized(), threads=1, max_context=512, paired=asked == "baseline"
    ).policy
    assert found is not None
    assert found.asks
    widths = {"gate": None, "precision": 0.01, "require": 0.03, "baseline": 0.03}
    assert found.precision == widths[asked]
    if asked != "baseline":
        wild = [launched(100 + 20 * (n % 3)) for n in range(4)]
        assert decide(found, wild[:3], 3.0) is None


def test_a_bound_is_decided_without_a_width() -> None:
    wide = [launched(100 + n * 3) for n in range(3)]
    far, near = (policy(precision=None, bounds=(("tg64", bound),)) for bound in (50.0, 104.0))
    assert decide(far, wide, 3.0) == Stop("precise", "3 launches: every gate on a rate is decided")
    assert decide(near, wide, 3.0) is None


def test_launches_beside_a_baseline_alternate_and_can_be_taken_back() -> None:
    found = cell_launches(
        spec(precision=0.01), tokenized(), threads=1, max_context=512, paired=True
    )
    assert found.policy is not None
    assert [r.arm for r in found.policy.block] == ["candidate", "baseline", "baseline", "candidate"]
    assert found.once[-1].arm == "baseline"
    arm = BaselineArm("old", (), BUILD)
    job = DeviceJob(
        "j", 1, 1, "r", "c", "d", OWN, (), found.once, policy=found.policy, baseline=arm
    )
    assert least_launches(job) == 3 + 8
    alone = without_baseline(job)
    assert alone.baseline is None
    assert {r.arm for r in alone.launches} == {"candidate"}
    assert alone.policy is not None
    assert [r.arm for r in alone.policy.block] == ["candidate"]
    assert least_launches(alone) == 2 + 3


def test_what_the_context_cannot_hold_is_left_out_with_a_reason() -> None:
    sweep = spec(prefill=(128, 600), decode=(64,), depth=(0, 449))
    found = cell_launches(sweep, tokenized(), threads=1, max_context=512, paired=False)
    assert found.policy is not None
    assert [m.name for m in found.policy.block[0].measures] == ["pp128", "tg64"]
    assert too_long(sweep.workload, 512) == {
        "pp600": "needs 600 tokens of context, the artifact has 512",
        "pp128@d449": "needs 577 tokens of context, the artifact has 512",
        "pp600@d449": "needs 1049 tokens of context, the artifact has 512",
        "tg64@d449": "needs 513 tokens of context, the artifact has 512",
    }
    nothing = cell_launches(sweep, tokenized(), threads=1, max_context=32, paired=False)
    assert nothing.policy is None
    assert [bool(r.passes) for r in nothing.once] == [True]
