"""A campaign's journal as its workers share it: every status is written down, claims are exclusive, changes whole."""

import threading
import time
from functools import partial

import pytest
from journal_engine import square

from refquant.errors import ArgumentError, BackendMissing
from refquant.verify import Status, oracle
from refquant.verify.journal import Journal, Result, Task, carry_out
from refquant.verify.journal.long_campaign import try_task


class Answers:
    """An engine under the name of one profile that gives the bits of another one."""

    def __init__(self, profile, answers):
        self.name, self.profile, self.answers = profile, profile, answers

    def describe(self):
        return {}

    def supports(self, problem):
        return None

    def run(self, problem):
        return oracle(problem, self.answers)


@pytest.mark.parametrize(
    "line, answers, status",
    [
        ("conv_transpose2d/onednn/n1c3h5w6-oc5k3s2/neartie/seed=1/per_channel", "onednn", Status.EXACT),
        ("conv_transpose2d/onednn/n1c3h5w6-oc5k3s2/neartie/seed=1/per_channel", "onednn+shuffled_transpose", Status.EXPLAINED),
        ("linear/onednn/m64k31n100/neartie/seed=0/per_channel", "fbgemm", Status.DIFFERENT),
        ("hardsigmoid/tflite_ref/n100/random/seed=0", "tflite_ref", Status.UNSUPPORTED),
        ("relu/onednn/n1/random/seed=0", "onednn", Status.UNTRUSTED),
    ],
)
def test_every_status_is_reached_and_written_down(line, answers, status, tmp_path):
    op, profile = line.split("/")[:2]
    with Journal(tmp_path / "one.journal", kind="campaign") as journal:
        journal.plan(profile, op, [line])
        carry_out(journal, partial(try_task, load=lambda name: Answers(name, answers)))
        (outcome,) = journal.outcomes()
        assert outcome[4] == str(status) and bool(outcome[5]) == (status is not Status.EXACT)
        assert (outcome[6] > 0) == (status in (Status.EXACT, Status.EXPLAINED, Status.DIFFERENT)) and (outcome[7] > 0) == (status is Status.DIFFERENT)


# Claims


def planned(tmp_path, lines="1 2 3", **settings):
    journal = Journal(tmp_path / "claims.journal", kind="test", **settings)
    journal.plan("any", "add", lines.split())
    return journal


def test_a_claim_is_exclusive_until_its_lease_runs_out(tmp_path):
    with planned(tmp_path, "1", lease=0.3) as one, planned(tmp_path, "1") as two:
        task = one.claim()
        assert two.claim() is None and one.claim() is None
        one.renew()
        time.sleep(0.4)
        assert two.claim() == task
        assert not one.finish(task, Result(Status.DIFFERENT)), "the claim is lost, so the outcome is dropped"
        assert two.finish(task, Result(Status.EXACT, outputs=4)) and not two.finish(task, Result(Status.DIFFERENT))
        assert two.outcomes() == [("any", "add", 0, "1", "EXACT", "", 4, 0)]


def test_renewed_leases_last(tmp_path):
    with planned(tmp_path, "1 2", lease=0.4) as one, planned(tmp_path, "1 2", lease=0.4) as two:
        slow = lambda task: (time.sleep(0.9), square(task))[1]  # noqa: E731
        thread = threading.Thread(target=carry_out, args=(one, slow))
        thread.start()
        time.sleep(0.2)
        assert carry_out(two, slow) == 1, "each computed one, and waited for the other"
        thread.join()
        assert [row[0] for row in two.ask("SELECT claims FROM cases")] == [1, 1]


def test_closing_gives_claims_back(tmp_path):
    with planned(tmp_path) as one:
        one.claim()
        assert one.counts() == {"open": 2, "claimed": 1}
    with Journal(tmp_path / "claims.journal") as journal:
        assert journal.counts() == {"open": 3}
        with pytest.raises(ArgumentError, match="cannot be written"):
            journal.claim()


def test_a_worker_that_dies_is_an_outcome(tmp_path):
    with planned(tmp_path, "1 2 die raise 5") as journal:
        assert carry_out(journal, square, workers=2) == 5
        assert [(row[3], row[4], row[6]) for row in journal.outcomes()] == [
            ("1", "EXACT", 1), ("2", "EXACT", 4), ("die", "DIFFERENT", 0), ("raise", "DIFFERENT", 0), ("5", "EXACT", 25),
        ]  # fmt: skip
        assert [row[5] for row in journal.outcomes()][2:4] == ["the process that computed it died", "the work raised RuntimeError: on purpose"]


def test_what_ends_a_run_leaves_the_rest_open(tmp_path):
    def missing(task):
        raise BackendMissing("not here")

    with planned(tmp_path) as journal:
        with pytest.raises(BackendMissing):
            carry_out(journal, missing)
        assert journal.counts() == {"open": 3}
        with pytest.raises(ArgumentError, match="workers=0"):
            carry_out(journal, square, workers=0)


def test_a_stranger_cannot_finish(tmp_path):
    with planned(tmp_path) as journal:
        assert not journal.finish(Task(1, "any", "add", "1"), Result(Status.EXACT))


def test_a_change_happens_wholly_or_not_at_all(tmp_path):
    with planned(tmp_path) as journal:
        with pytest.raises(RuntimeError):
            with journal.change() as db:
                db.execute("DELETE FROM cases")
                raise RuntimeError
        assert journal.counts() == {"open": 3}
