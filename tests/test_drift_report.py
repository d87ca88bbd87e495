"""What the drift report is written as: text, JSON, a page, a picture; whole files or none."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import refquant as rq
from refquant import data, zoo
from refquant.core.files import write_whole
from refquant.drift import analyse
from refquant.drift.text import shortened
from refquant.workflow import get_default_qconfig_mapping


@pytest.fixture(scope="module")
def report():
    x, labels = data.load_split("digits", "test")
    seen, _ = data.load_split("digits", "calibration")
    mapping, other = get_default_qconfig_mapping("x86"), get_default_qconfig_mapping("onednn")
    return analyse(
        zoo.load("digits_mobilenet"), mapping, x[:64], labels[:64], calibration=seen, alternatives={"256 codes": other}, sensitivity=True, layer_images=32
    )


class _Tags(HTMLParser):
    """Collects tags and attributes, and checks that they are closed in order."""

    EMPTY = ("meta", "rect", "line", "circle", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY or self.get_starttag_text()[-2] != "/" and tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, text):
        self.text.append(text)


def parsed(page):
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_the_page_refers_to_nothing_outside_of_it(report):
    page = report.to_html()
    assert not re.search(r"https?:|//\w|@import|url\(|\bsrc\s*=|<link|<iframe|<img|fetch\(|XMLHttp", page)
    assert "prefers-color-scheme: dark" in page and page.count("<script>") == 1
    for tag, attrs in parsed(page).seen:
        assert not {"src", "href", "srcset", "action"} & set(attrs), (tag, attrs)


def test_the_page_shows_every_layer_and_all_figures(report):
    tags = parsed(report.to_html())
    text = " ".join(tags.text)
    assert all(text.count(r.name) >= 2 for r in report.layers)
    assert all(sentence in text for sentence in report.verdict.sentences)
    charts = [attrs["aria-label"] for tag, attrs in tags.seen if tag == "svg"]
    weighted = sum(r.weights is not None for r in report.layers)
    assert charts.count("weights by channel") == weighted and charts.count("histogram of values with the range of the grid") == len(report.layers)
    assert sum(tag == "table" for tag, _ in tags.seen) == 3


def test_charts_are_drawn_to_scale(report):
    tags = parsed(report.to_html())
    bars = [float(a["width"]) for tag, a in tags.seen if tag == "rect" and a.get("class") == "local"]
    sqnrs = [min(r.local.sqnr, 60.0) for r in report.layers]
    np.testing.assert_allclose(bars, np.array(sqnrs) * 6, atol=0.01)
    stacked = [float(a["width"]) for tag, a in tags.seen if tag == "rect" and a.get("class", "").startswith("cause-")]
    assert sum(stacked) == pytest.approx(360 * len(report.layers), rel=1e-3)


def test_names_are_escaped(report):
    hostile = '<script>alert(1)</script>"&'
    page = replace(report, model=hostile, notes=(hostile,), layers=(replace(report.layers[0], name=hostile), *report.layers[1:])).to_html()
    assert "<script>alert" not in page
    parsed(page)


def test_json_is_strict_and_holds_all_numbers(report):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    comp = json.loads(report.to_json(), parse_constant=refuse)
    assert comp["accuracy"]["fp32"] == report.accuracy.fp32 and comp["verdict"]["layer"] == report.verdict.layer
    for record, layer in zip(report.layers, comp["layers"]):
        assert layer["name"] == record.name and layer["local"]["sqnr"] == record.local.sqnr
        assert layer["causes"]["weights"]["share"] == record.causes["weights"].share
        assert sum(cause["share"] for cause in layer["causes"].values()) == pytest.approx(1)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_text_fits_the_terminal(report, width):
    lines = report.to_text(width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(shortened(report.layers[3].name, 28) in line for line in lines) >= 2
    assert all(word in " ".join(lines) for word in ("VERDICT", "ONE LAYER AT A TIME", "OTHER CHOICES", "256 codes"))


def test_text_says_what_the_report_says(report):
    line = next(x for x in report.to_text(100).splitlines() if x.startswith("stem_conv "))
    r = report.layer("stem_conv")
    assert [f"{v:.1f}" for v in (r.local.sqnr, r.cumulative.sqnr, r.impact)] == line.split()[1:4]
    assert line.endswith(f"ch {r.weights.worst}: {r.weights.worst_sqnr:.1f}")


@pytest.mark.parametrize("kind, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures(report, tmp_path, kind, start):
    report.plot(tmp_path / f"a.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes().startswith(start)


def test_files_are_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    report.to_html(path)
    ref = path.read_bytes()
    assert ref.decode() == report.to_html() and ref.endswith(b"</html>\n")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(rq.RefquantError, match="No space left"):
        report.to_json(path)
    assert path.read_bytes() == ref and os.listdir(tmp_path) == ["a.html"]


@pytest.mark.parametrize("name, message", [("missing/a.html", "folder must exist"), ("", "is a folder")])
def test_places_that_cannot_be_written_are_refused(tmp_path, name, message):
    with pytest.raises(rq.RefquantError, match=message):
        write_whole(tmp_path / name, b"")


def test_an_unknown_format_is_refused(report, tmp_path):
    with pytest.raises(rq.RefquantError, match="'gif' is not known.*'png'"):
        report.plot(tmp_path / "a.gif")
    assert os.listdir(tmp_path) == []


def test_matplotlib_is_imported_for_pictures_alone():
    code = (
        "import sys, numpy as np; from refquant.drift import analyse; from refquant import zoo, data;"
        "from refquant.workflow import get_default_qconfig_mapping as g; x, y = data.load_split('digits', 'test');"
        "r = analyse(zoo.load('digits_resnet'), g('onednn'), x[:16], y[:16], layer_images=8); r.to_html(); r.to_json(); str(r);"
        "print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
