"""The gallery: every published number comes out of the oracle, and out of the engine where it is installed."""

from functools import lru_cache

import numpy as np
import pytest

from refquant import backends
from refquant.cli.main import main
from refquant.errors import BackendMissing
from refquant.verify.gallery import PUZZLES, Claim, Puzzle, find, solve
from refquant.verify.shown import show

load = lru_cache(backends.load)  # a held engine is a process of its own


def ids(puzzle):
    return puzzle.name


@pytest.mark.parametrize("puzzle", PUZZLES, ids=ids)
def test_the_oracle_gives_the_published_numbers(puzzle):
    solution = solve(puzzle)
    assert [(row.claim.who, row.oracle) for row in solution.rows] == [(claim.who, claim.reported) for claim in puzzle.claims]
    assert puzzle.link.startswith("https://github.com/") and puzzle.link.endswith("/issues/" + puzzle.name.rpartition("-")[2])
    assert puzzle.name in solution.text() and puzzle.link in solution.text()


@pytest.mark.parametrize("puzzle", PUZZLES, ids=ids)
def test_claims_tell_something_apart(puzzle):
    """A puzzle whose numbers were all the same would prove nothing; one that shows a rate of nought has another that is not."""
    assert len({str(claim.reported) for claim in puzzle.claims}) > 1 or np.any(puzzle.claims[0].reported)


ASKED = [(puzzle, claim) for puzzle in PUZZLES for claim in puzzle.claims if claim.engine]


@pytest.mark.engine
@pytest.mark.parametrize("puzzle, claim", ASKED, ids=[f"{p.name}-{c.engine}-{i}" for i, (p, c) in enumerate(ASKED)])
def test_the_live_engine_gives_the_published_numbers(puzzle, claim):
    try:
        runner = load(claim.engine)
    except BackendMissing as error:
        pytest.skip(str(error))
    shown = show(claim.problem, claim.profile, runner)
    assert shown.live is not None and shown.agrees
    assert shown.level or np.array_equal(shown.live.ravel(), np.ravel(claim.reported))


def test_a_wrong_number_is_found():
    puzzle = find("tensorflow-102943")
    claim = puzzle.claims[0]._replace(reported=-119)
    wrong = Puzzle(**{**{k: getattr(puzzle, k) for k in Puzzle.__dataclass_fields__}, "claims": (claim, *puzzle.claims[1:])})
    solution = solve(wrong)
    assert not solution.solved and "NOT THE SAME" in solution.text() and [row.solved for row in solution.rows] == [False, True, True]


def test_a_live_engine_that_disagrees_is_found():
    class Liar:
        name = profile = "tflite_ref"
        supports = lambda self, problem: None  # noqa: E731

        def run(self, problem):
            return np.int8([[[[-1]]]])

    puzzle = find("tensorflow-102943")
    solution = solve(puzzle, lambda name: Liar())
    assert not solution.solved and all(row.live == -1 for row in solution.rows)


def test_missing_engines_are_left_out():
    def missing(name):
        raise BackendMissing("not here")

    assert all(row.live is None for row in solve(find("pytorch-44939"), missing).rows)


def test_the_command(capsys):
    assert main(["gallery", "pytorch-44939", "onnxruntime-25512", "--oracle"]) == 0
    out = capsys.readouterr().out
    assert "oracle 113" in out and "-112" in out and "2 puzzles" in out
    assert main(["gallery", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(p.name in listed for p in PUZZLES)
    assert main(["gallery", "pytorch-4493"]) == 2
    assert "did you mean 'pytorch-44939'" in capsys.readouterr().err


def test_the_command_fails_on_a_wrong_number(capsys, monkeypatch):
    import refquant.verify.gallery as gallery

    wrong = Puzzle(name="x-1", title="t", link="l", question="q", reason="r", claims=(Claim("a", 1, lambda: 2),))
    monkeypatch.setattr(gallery, "PUZZLES", (wrong,))
    assert main(["gallery"]) == 1
    assert "not reproduced: x-1" in capsys.readouterr().out
