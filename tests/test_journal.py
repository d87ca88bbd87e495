"""Journals: killed runs resume without loss or repetition, processes share one file, and what is no journal is refused."""

import multiprocessing
import random
import shutil
import sqlite3
import time
from collections import Counter
from itertools import islice

import journal_engine
import pytest
from journal_engine import OPS, OUTPUTS, campaign, load

from refquant.errors import ArgumentError
from refquant.verify import STREAMS, build, case_stream, oracle
from refquant.verify import campaign as plain_campaign
from refquant.verify.journal import Journal, read_plan, run_campaign
from refquant.verify.journal.expected_outputs import expected_outputs
from refquant.verify.journal.schema import SCHEMA_VERSION

KILLS = 20


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The journal of a campaign that ran through."""
    path = tmp_path_factory.mktemp("journal") / "through.journal"
    campaign(path)
    return path


@pytest.fixture(scope="module")
def forks():
    """Processes that start at once, as everything is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["journal_engine", "refquant.ops", "refquant.verify.elementwise_data"])
    return context


def outcomes(path):
    with Journal(path) as journal:
        return journal.outcomes()


def wait_for(path, count, process):
    """Return once a process has brought a journal to more than `count` outcomes."""
    while process.is_alive() and count and not path.exists():
        time.sleep(0.001)
    if count and path.exists():
        with Journal(path) as journal:
            while process.is_alive() and journal.counts().get("done", 0) <= count:
                time.sleep(0.001)


def so_far(path):
    with Journal(path) as journal:
        return journal.counts().get("done", 0)


def test_a_campaign_is_the_sum_of_plain_ones(through):
    with Journal(through) as journal:
        for op in OPS:
            row = plain_campaign(load("onnx"), op, outputs=OUTPUTS)
            found = journal.ask("SELECT SUM(outputs), SUM(differing), SUM(status = 'DIFFERENT'), SUM(status IN ('EXACT', 'DIFFERENT')) FROM results WHERE op = ?", (op,))[0]
            assert tuple(found) == (row.outputs, row.differing, len(row.failures), row.cases)
        statuses = {row[0] for row in journal.ask("SELECT DISTINCT status FROM results")}
        assert statuses == {"EXACT", "DIFFERENT", "UNSUPPORTED", "UNTRUSTED"} and journal.counts().keys() == {"done"}
        assert "no multiples of seven" in " ".join(row[0] for row in journal.ask("SELECT detail FROM results"))
        assert [(p.engine, p.op, p.outputs) for p in read_plan(journal)] == [("onnx", op, OUTPUTS) for op in OPS]


def test_killed_twenty_times_it_ends_the_same(through, forks, tmp_path):
    path, rng, hit, seen = tmp_path / "killed.journal", random.Random(5), 0, [0]
    for kill in range(KILLS):
        process = forks.Process(target=campaign, args=(path,))
        process.start()
        wait_for(path, seen[-1] + rng.randrange(0, 6) if kill % 4 else 0, process)
        time.sleep(rng.uniform(0.0, 0.003 if kill % 4 else 0.15))
        hit += process.exitcode is None
        process.kill()
        process.join()
        seen.append(so_far(path) if path.exists() else 0)
    assert hit == KILLS and seen == sorted(seen) and len(set(seen)) > KILLS // 3, seen
    assert 0 < seen[-1] < len(outcomes(through)), "kill sooner: the campaign was done before the last one"
    campaign(path)
    assert outcomes(path) == outcomes(through)
    with Journal(path) as journal:
        assert sum(row[0] for row in journal.ask("SELECT claims - 1 FROM cases")) <= KILLS
        assert campaign(path) == 0, "what is done is not done again"


def test_processes_share_a_journal(through, forks, tmp_path):
    path = tmp_path / "shared.journal"
    processes = [forks.Process(target=campaign, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert outcomes(path) == outcomes(through)
    with Journal(path) as journal:
        assert journal.ask("SELECT MAX(claims) FROM cases")[0][0] == 1, "no case was claimed twice"
        assert journal.ask("SELECT COUNT(DISTINCT pid) FROM sessions")[0][0] == 3
        assert journal.ask("SELECT COUNT(*) FROM (SELECT DISTINCT session FROM cases)")[0][0] > 1


def test_workers_and_a_killed_pool_leave_nothing_behind(through, forks, tmp_path):
    path = tmp_path / "workers.journal"
    process = forks.Process(target=campaign, args=(path, OUTPUTS, 2))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and so_far(path)):
        time.sleep(0.05)
    process.kill()
    process.join()
    assert campaign(path, workers=2) > 0
    assert outcomes(path) == outcomes(through)


@pytest.mark.parametrize("op", STREAMS)
def test_the_outputs_of_a_case_are_known_from_its_line(op):
    for case in islice(case_stream(op, "fbgemm"), 40):
        bound = expected_outputs(case)
        if bound is not None and bound < 2000 and case.strategy != "wrap":
            size = oracle(build(case), "fbgemm").size
            assert size == bound or case.has("ceil") and size < bound, str(case)


def test_more_outputs_continue_a_campaign(through, tmp_path):
    path = tmp_path / "more.journal"
    campaign(path, outputs=20000)
    before = outcomes(path)
    campaign(path, outputs=OUTPUTS)
    assert len(before) < len(outcomes(path)) and outcomes(path) == outcomes(through)
    with pytest.raises(ArgumentError, match="begun with seed=0, but seed=3"):
        run_campaign(path, load=load, seed=3)
    assert run_campaign(path, load=load) == 0
    with pytest.raises(ArgumentError, match="name the engines"):
        run_campaign(tmp_path / "new.journal", load=load)


def test_other_default_cases_are_noticed(through, tmp_path):
    path = shutil.copy(through, tmp_path / "other.journal")
    db = sqlite3.connect(path)
    db.execute("UPDATE streams SET fingerprint = 'another' WHERE op = 'add'")
    db.commit()
    db.close()
    with pytest.raises(ArgumentError, match="whose cases of add on onnx are others"):
        run_campaign(path, load=load)


# Files


def damaged(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(content)))
    return path


def newer(content):
    content[60:64] = (SCHEMA_VERSION + 1).to_bytes(4, "big")
    return content


def foreign(content):
    content[68:72] = b"\0\0\0\0"
    return content


def scrambled(content):
    content[4096:8192] = bytes(4096)
    return content


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c[: len(c) // 2], "is truncated"), (lambda c: c[:5000], "is truncated"), (lambda c: c[:60], "another kind of file"), (lambda c: b"", "is empty"),
        (lambda c: b"PK\3\4" + c[4:], "another kind of file"), (newer, "has version 2, but this refquant reads up to 1"), (foreign, "another program's database"),
        (scrambled, "is damaged"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [None, "campaign"])
def test_what_is_no_journal_is_refused(through, tmp_path, change, message, kind):
    path = damaged(shutil.copy(through, tmp_path / "bad.journal"), change)
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match=message) as caught:
        Journal(path, kind=kind)
    assert "\n" not in str(caught.value) and path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["bad.journal"]


def test_other_kinds_and_places_are_refused(through, tmp_path):
    with pytest.raises(ArgumentError, match="holds a campaign, but a survey"):
        Journal(through, kind="survey")
    with pytest.raises(ArgumentError, match="must be a readable file"):
        Journal(tmp_path / "missing.journal")
    with pytest.raises(ArgumentError, match="its folder must exist"):
        Journal(tmp_path / "no" / "where.journal", kind="campaign")
    with pytest.raises(ArgumentError, match="must be a readable file"):
        Journal(tmp_path, kind="campaign")


def test_questions_cannot_change_anything(through, tmp_path):
    with Journal(through) as journal:
        for sql in ("DELETE FROM cases", f"ATTACH '{tmp_path / 'x.db'}' AS x", "PRAGMA query_only = 0", "CREATE TABLE t (x)", "VACUUM", "SELECT nothing FROM nowhere"):
            with pytest.raises(ArgumentError, match="cannot be answered"):
                journal.ask(sql)
    assert not (tmp_path / "x.db").exists() and [p.name for p in through.parent.iterdir()] == [through.name]


# Executors


def test_any_executor_carries_out(through, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        campaign(tmp_path / "threads.journal", executor=executor)
    assert outcomes(tmp_path / "threads.journal") == outcomes(through)


@pytest.mark.engine
def test_a_dask_cluster_carries_out(through, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        campaign(tmp_path / "dask.journal", executor=client.get_executor())
    assert outcomes(tmp_path / "dask.journal") == outcomes(through)


def test_the_engine_of_these_tests_differs_somewhere(through):
    assert Counter(row[4] for row in outcomes(through))["DIFFERENT"] > 3 and journal_engine.OPS == OPS


# The command


def call(capsys, *arguments):
    from refquant.cli.main import main

    status = main(["campaign", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_shows_asks_and_reports(through, tmp_path, capsys):
    status, text, _ = call(capsys, "show", through)
    assert status == 1 and "DIFFERENT" in text and "refquant verify --engine onnx --case" in text and "finished; 1 session" in text
    status, text, _ = call(capsys, "query", through, "--sql", "SELECT op, SUM(outputs) AS total FROM results GROUP BY op", "--json")
    assert status == 0 and [line.split('"')[3] for line in text.splitlines()] == sorted(OPS)
    for name in ("progress", "failures", "reasons", "engines", "sessions", "slowest"):
        status, text, _ = call(capsys, "query", through, name)
        assert status == 0 and len(text.splitlines()) > 1 and "Traceback" not in text
    page = tmp_path / "report.html"
    assert call(capsys, "report", through, "--html", page)[0] == 1
    assert_self_contained(page.read_text(encoding="utf-8"))


def assert_self_contained(text):
    from html.parser import HTMLParser

    open_, void = [], {"meta", "rect", "line", "circle"}

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert not {name for name, _ in attributes} & {"src", "href"}
            open_.extend([tag] if tag not in void else [])

        def handle_endtag(self, tag):
            assert tag in void or open_.pop() == tag

    Checker().feed(text)
    assert open_ == [] and "Bits differ in" in text and "no multiples of seven" in text and "process" in text and "sloppy 1" in text


def test_the_command_runs_and_goes_on(tmp_path, capsys, monkeypatch):
    from refquant import backends

    monkeypatch.setattr(backends, "load", load)
    monkeypatch.setattr(backends, "installed", lambda name: True)
    monkeypatch.setattr(backends, "names", lambda: ("onnx",))
    path = tmp_path / "run.journal"
    assert call(capsys, "run", path, "--op", "relu", "--outputs", 3000)[0] == 0
    status, text, _ = call(capsys, "run", path)
    assert status == 0 and text.startswith("0 cases tried now")
    status, text, _ = call(capsys, "run", path, "--outputs", 6000)
    assert status == 0 and not text.startswith("0 cases")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["qurey", "x"], "did you mean 'query'"), (["show"], "the following arguments are required: JOURNAL"), (["show", "missing.journal"], "must be a readable file"),
        (["show", "x", "--workers", "2"], "--workers belongs to campaign run"), (["run", "x", "failures"], "'failures' belongs to campaign query"),
        (["query", "{}"], "give one question"), (["query", "{}", "failure"], "did you mean 'failures'"), (["query", "{}", "--sql", "DROP TABLE cases"], "cannot be answered"),
        (["run", "{}", "--seed", "4"], "begun with seed=0"), (["report", "{}", "--html", "no/where.html"], "its folder must exist"), (["run", "{}", "--workers", "0"], "at least 1"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(through, capsys, arguments, message):
    status, out, err = call(capsys, *(a.format(through) for a in arguments))
    assert status == 2 and message in err and err.count("\n") == 1 and not out
