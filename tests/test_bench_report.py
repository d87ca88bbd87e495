"""What the timing harness says: reports, the chart, the command; on fake works and a fake clock."""

import json

import pytest
from bench_fakes import MACHINE, Clock, contest, duel, ratios, wrong

from refquant.backends.bench import run as run_module
from refquant.backends.bench.case import Bar, Settings
from refquant.backends.bench.chart import chart_rows, draw
from refquant.backends.bench.harness import geomean
from refquant.backends.bench.report import WIDTH, listing, plain_report, text_report
from refquant.backends.bench.run import WORKS, chosen, run_works
from refquant.cli.main import main


def report_rows():
    clock = Clock()
    cases = [duel(clock, 0.0123, 0.04, name=f"{g} 123x224x224 3x3/2 depthwise relu", group=g, operations=1e9) for g in ("resnet50", "mobilenet_v2")]
    bars = (Bar("geomean", lambda rs: geomean(ratios(rs)), 1.15, by_group=True),)
    works = [
        contest(clock, "conv", cases, bars, grouped=True),
        contest(clock, "plain", [duel(clock, name="p", theirs_bits=wrong()), duel(clock, 3.0, 2.0, name="q")], bars),
    ]
    return run_works(works, Settings(turns=5), clock=clock)


@pytest.mark.parametrize("cases", [False, True])
def test_reports_fit_a_hundred_columns(cases):
    text = text_report(report_rows(), MACHINE, cases=cases)
    assert max(map(len, text.splitlines())) <= WIDTH == 100
    for part in ("AVX512-VNNI, no AMX, 2 threads", "no onnxruntime", "DIFFERENT, not timed", "  below", "resnet50, geomean", "3.25"):
        assert part in text
    assert ("\n    123x224x224 3x3/2 depthwise relu" in text) == cases
    assert ("3.25  1.15 reached" in text) == (not cases)


def test_a_bar_that_is_not_reached_says_where_to_look():
    clock, bars = Clock(), (Bar("worst", lambda rs: min(ratios(rs)), 9.0, by_group=True),)
    case = duel(clock, name="c", group="a")
    for told, text in ((), "2.00  below\n"), ({"fake"}, "2.00  below, told below\n"):
        found = run_works([contest(clock, cases=[case], bars=bars, grouped=True)], Settings(turns=5), clock=clock)
        report = text_report(found, MACHINE, told=told) + "\n"
        assert report.endswith(text) and "9 below" in report
        assert max(map(len, report.splitlines())) <= WIDTH


def test_a_busy_machine_is_told():
    busy = text_report(report_rows(), {**MACHINE, "load": 3.21})
    assert "Load 3.2 on 4 processors before the run" in busy and max(map(len, busy.splitlines())) <= WIDTH
    assert "Load" not in text_report(report_rows(), MACHINE) and "Load" not in text_report(report_rows(), {**MACHINE, "load": None})


def test_reports_become_plain_values():
    plain = json.loads(json.dumps(plain_report(report_rows(), MACHINE, Settings(turns=5))))
    conv, other = plain["works"]
    assert conv["cases"][0]["ratio"] == pytest.approx(0.04 / 0.0123) and len(conv["cases"][0]["contenders"][0]["seconds"]) == 5
    assert other["cases"][0]["status"] == "DIFFERENT" and other["cases"][0]["contenders"] == []
    assert conv["bars"][0]["reached"] is True


def test_the_chart_has_a_bar_a_group_and_a_line_at_one():
    found = report_rows()
    assert [row.label for row in chart_rows(found[0])] == ["resnet50 (1)", "mobilenet_v2 (1)"]
    assert [(row.label, pytest.approx(row.ratio)) for row in chart_rows(found[1])] == [("q", 2 / 3)]
    axes = draw(found, MACHINE).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["resnet50 (1)", "mobilenet_v2 (1)", "q"]
    assert any(set(line.get_xdata()) == {1} for line in axes.lines)
    widths = {bar.get_width() > 0: bar.get_facecolor() for bar in axes.patches}
    assert widths[True] != widths[False]
    assert draw([], MACHINE) is None


def test_works_have_bars_and_cases_of_their_own():
    for work in WORKS:
        names = [plan.name for plan in work.plans()]
        assert len(names) == len(set(names)) and work.bars and work.title
    text = listing(chosen(WORKS))
    assert "gemm/1024x1024x1024" in text and "linear/x86 49x512x4608" in text and max(map(len, text.splitlines())) <= 100


# The command.


@pytest.fixture
def fakes(monkeypatch):
    clock = Clock()
    works = (contest(clock, "good", [duel(clock)], (Bar("ratio", lambda rs: geomean(ratios(rs)), 1.5),)), contest(clock, "bad", [duel(clock, theirs_bits=wrong())]))
    monkeypatch.setattr(run_module, "WORKS", works)
    return works


def test_list_prints_works_and_runs_nothing(fakes, capsys):
    assert main(["bench", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["good: Title of good", "  ratio >= 1.5", "    good/case", "bad: Title of bad", "    bad/case"]


def test_the_command_writes_its_files(fakes, capsys, tmp_path):
    json_path, plot_path = tmp_path / "out.json", tmp_path / "out.svg"
    assert main(["bench", "--filter", "good", "--turns", "5", "--json", str(json_path), "--plot", str(plot_path)]) == 0
    out, err = capsys.readouterr()
    assert "good: Title of good" in out and "[1/1] good/case" in err
    assert json.loads(json_path.read_text())["turns"] == 5 and b"<svg" in plot_path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.svg"]


def test_a_difference_is_the_exit_status(fakes, capsys):
    assert main(["bench", "--filter", "bad"]) == 1
    assert "DIFFERENT, not timed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--turns", "4"], "turns=4 is less than 5"),
        (["--turns", "x"], "must be a whole number"),
        (["--threads", "0"], "must be a whole number"),
        (["--filter", "zzz"], "'zzz' is in no work/case"),
        (["--plot", "chart.gif"], "choose one of '.png', '.svg'"),
        (["--json", "no/such/folder.json"], "no/such"),
        (["--jsn", "x"], "did you mean --json"),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(fakes, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and not out and not list(tmp_path.iterdir())
