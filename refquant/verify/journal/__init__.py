"""Journals: long runs that can be killed, resumed, shared among processes, and asked about."""

from refquant.verify.journal.carry_out import carry_out
from refquant.verify.journal.journal import Journal, Result, Task
from refquant.verify.journal.long_campaign import plan_campaign, read_plan, run_campaign
from refquant.verify.journal.questions import QUESTIONS, question

__all__ = ["Journal", "QUESTIONS", "Result", "Task", "carry_out", "plan_campaign", "question", "read_plan", "run_campaign"]
