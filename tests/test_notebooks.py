"""Every notebook runs from top to bottom; its assertions are its claims."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.engine  # what a notebook shows beside an engine or with Hypothesis, it shows where these are installed

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.py"))


def run(source, name):
    """Execute a notebook's cells as a script, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        exec(compile(source, name, "exec"), {"__name__": "__main__"})
    plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    run(path.read_text(encoding="utf-8"), str(path))


def test_there_are_notebooks():
    assert [p.name[:2] for p in NOTEBOOKS][:2] == ["01", "02"]


def test_a_false_claim_is_found():
    source = NOTEBOOKS[0].read_text(encoding="utf-8").replace("5.8 < slope < 6.4", "5.8 < slope < 5.9")
    with pytest.raises(AssertionError):
        run(source, "altered")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_rendered_notebook_has_the_same_cells(path):
    """The .ipynb beside a script is made from it (jupytext) and must not lag behind."""
    import json

    cells = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]).strip() for c in cells if c["cell_type"] == "code"]
    blocks = [b.partition("\n") for b in path.read_text(encoding="utf-8").split("# %%")[1:]]
    assert code == [body.strip() for title, _, body in blocks if "[markdown]" not in title]
