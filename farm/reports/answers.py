"""What devices answered to the prompts of a config, in words. No part of any verdict."""

from __future__ import annotations

from farm.core.asked import AnswerReport
from farm.core.result import Report


def no_answer(answer: AnswerReport) -> str:
    """Say what there is in place of a text."""
    return f"no answer: {answer.reason}" if answer.text is None else "(an empty answer)"


def answers_line(report: Report) -> str:
    """Count the answers, and name the cells that lack some; empty where nothing was asked."""
    asked = [(r.cell_id, one) for r in report.results for one in r.answers]
    if not asked:
        return ""
    lacking = dict.fromkeys(cell for cell, one in asked if one.text is None)
    given = sum(one.text is not None for _, one in asked)
    line = f"{given} of {len(asked)} answers given; nothing is judged by them"
    return line + (f"; missing of {', '.join(lacking)}" if lacking else "")
