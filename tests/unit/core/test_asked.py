"""Prompts of a config: what each cell launches for them, and what a report says of each."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from farm.core.asked import AnswerReport, ChatPrompt, Prompt
from farm.core.errors import RunnerCrashed
from farm.core.flow.second import for_longer
from farm.core.result import Report
from farm.core.rules.launches import cell_launches
from farm.core.runner import OWN
from farm.core.runtime import DeviceJob, Generate, LaunchRequest, LaunchResult
from farm.reports import html, json, markdown
from farm.site.job.asking import ask
from farm.ui import tables
from tests.unit.core import builders as b
from tests.unit.reports.builders import report, results

PROMPTS = (Prompt("Who?", 20), Prompt("Where?"), Prompt("Broken"))
CHATS = (ChatPrompt((1, 5, 6), "<user>Who?"), ChatPrompt((1,) * 600), ChatPrompt((), "", "refused"))


def launches(*, paired: bool = False) -> tuple[LaunchRequest | str, ...]:
    given = replace(b.tokenized(), asked=CHATS)
    spec = replace(b.run_spec(), prompts=PROMPTS)
    return cell_launches(spec, given, threads=2, max_context=512, paired=paired).asked


def test_a_prompt_is_one_greedy_launch_that_stops_as_the_model_does() -> None:
    first, long, refused = launches()
    assert first == LaunchRequest(2, generate=Generate((1, 5, 6), 20, (2,), "<user>Who?"))
    assert long == "the prompt has 600 tokens, the artifact's context 512"
    assert refused == "refused"
    assert launches(paired=True) == launches()


def job(*asked: LaunchRequest | str) -> DeviceJob:
    return DeviceJob("j", 1, 1, "r", "c", "d", OWN, (), (), asked=asked)


def test_a_runner_that_fails_at_a_prompt_fails_no_job() -> None:
    request = LaunchRequest(1, generate=Generate((1,), 4, ()))
    result = LaunchResult(b.HELLO, (), (), (7,), "length", None, None, 1, "auto")
    names = []

    def launch(_request: LaunchRequest, name: str) -> LaunchResult:
        names.append(name)
        if name == "prompt-3":
            raise RunnerCrashed("d: the runner ended with exit code 9")
        return result

    found = ask(job(request, "too long", request), launch)
    assert found == (result, "too long", "d: the runner ended with exit code 9")
    assert names == ["prompt-1", "prompt-3"]


def test_a_second_sitting_asks_nothing() -> None:
    assert for_longer(job("why")).asked == ()


def asked_report() -> Report:
    """Two prompts; the first cell answered one, the others were judged or ended before."""
    said = (
        AnswerReport("Who?", "It was `me`.\n```", (3, 4), "stop"),
        AnswerReport("Where?", None, reason="the runner crashed"),
    )
    cells = (replace(results()[0], answers=said), *results()[1:])
    return report(cells, prompts=PROMPTS[:2])


def test_every_planned_cell_has_an_answer_or_why_there_is_none() -> None:
    found = asked_report().results
    assert [len(one.answers) for one in found] == [2] * len(found)
    lost = found[4]
    assert lost.outcome == "errored"
    assert {one.text for one in lost.answers} == {None}
    assert all("not asked, the cell was errored: pixel8: gone" in a.reason for a in lost.answers)
    data = json.report_data(asked_report())["results"][4]["answers"][0]
    assert (data["prompt"], data["text"], data["ids"]) == ("Who?", None, None)


def test_answers_are_no_part_of_the_verdict() -> None:
    with_answers, without = asked_report(), report()
    assert [r.outcome for r in with_answers.results] == [r.outcome for r in without.results]
    assert with_answers.exit_code == without.exit_code


def test_reports_show_answers_and_name_those_that_are_missing() -> None:
    made = asked_report()
    text = markdown.render(made)
    assert "1 of 12 answers given; nothing is judged by them; missing of " in text
    assert "Asked: Who?\n\n````text\nIt was `me`.\n```\n````" in text
    assert "Asked: Where?\n\nno answer: the runner crashed" in text
    page = html.render(made)
    assert "It was `me`." in page
    assert "no answer: the runner crashed" in page
    console = Console(file=io.StringIO(), width=200)
    console.print(tables.report(made))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "1 of 12 answers given" in shown
    assert "Where? no answer: the runner crashed" in shown


def test_where_nothing_is_asked_nothing_is_said_of_answers() -> None:
    assert "nswers" not in markdown.render(report())
    assert all(one.answers == () for one in report().results)
