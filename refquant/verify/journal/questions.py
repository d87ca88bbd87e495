"""What is often asked of a journal: names for questions in SQL."""

from typing import NamedTuple

from refquant.errors import ArgumentError, choose

__all__ = ["QUESTIONS", "Question", "question"]


class Question(NamedTuple):
    """A question to a journal: its name, what it tells, and its SQL."""

    name: str
    tells: str
    sql: str


_DETAIL = "CASE instr(r.detail, char(10)) WHEN 0 THEN r.detail ELSE substr(r.detail, 1, instr(r.detail, char(10)) - 1) END"

QUESTIONS = (
    Question(
        "progress", "each operator on each engine: how far, and what came out",
        """SELECT s.op AS operator, s.engine, COUNT(c.id) AS cases, s.compared AS outputs, COALESCE(SUM(c.differing), 0) AS differing,
        COALESCE(SUM(c.status = 'DIFFERENT'), 0) AS different, COALESCE(SUM(c.status = 'EXPLAINED'), 0) AS explained,
        COALESCE(SUM(c.status = 'UNSUPPORTED'), 0) AS unsupported, COALESCE(SUM(c.status = 'UNTRUSTED'), 0) AS untrusted, s.complete AS finished, s.target
        FROM streams s LEFT JOIN cases c ON c.stream = s.id AND c.state = 'done' GROUP BY s.id ORDER BY s.id""",
    ),
    Question(
        "failures", "cases whose bits differ, most of them first",
        f"""SELECT r.engine, r.line AS "case", r.differing, r.outputs, {_DETAIL} AS report FROM results r WHERE r.status = 'DIFFERENT' ORDER BY r.differing DESC, r.line""",
    ),
    Question(
        "reasons", "why cases do not count, or what explains them",
        f"""SELECT r.engine, r.status, COUNT(*) AS cases, {_DETAIL} AS reason FROM results r WHERE r.status IN ('UNSUPPORTED', 'UNTRUSTED', 'EXPLAINED')
        GROUP BY 1, 2, 4 ORDER BY 3 DESC, 1, 4""",
    ),
    Question(
        "engines", "which engines answered, in which versions, on which machines",
        "SELECT p.engine, COUNT(c.id) AS cases, p.description AS provenance FROM provenance p LEFT JOIN cases c ON c.provenance = p.id GROUP BY p.id ORDER BY p.engine, p.id",
    ),
    Question(
        "sessions", "the processes that worked, and with what",
        """SELECT s.id AS session, s.began, COALESCE(s.ended, 'killed, or at work') AS ended, s.host, s.pid, COUNT(c.id) AS cases, s.refquant, s.python, s.numpy
        FROM sessions s LEFT JOIN cases c ON c.session = s.id AND c.state = 'done' GROUP BY s.id ORDER BY s.id""",
    ),
    Question("slowest", "the cases that took longest", 'SELECT engine, line AS "case", outputs, seconds FROM results ORDER BY seconds DESC LIMIT 20'),
)  # fmt: skip

if len({question.name for question in QUESTIONS}) != len(QUESTIONS):
    raise ArgumentError("journal: two questions share a name; rename one")


def question(name):
    """Return the question of a name, or raise an `ArgumentError` with the nearest one."""
    return {q.name: q for q in QUESTIONS}[choose("campaign query", "question", name, [q.name for q in QUESTIONS])]
