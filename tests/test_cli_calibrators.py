"""``refquant calibrators``: ranges and errors of its table, computed again from the observers."""

import numpy as np
import pytest

from refquant import observers
from refquant.cli.calibrators import DISTRIBUTIONS, _calibrators
from refquant.cli.main import main


def table(capsys, *arguments):
    assert main(["calibrators", *arguments]) == 0
    heading, _, *lines = capsys.readouterr().out.splitlines()
    return heading, {line[:43].strip(): line[43:].split() for line in lines if "%" in line}


def test_the_table_is_what_observers_say(capsys):
    heading, rows = table(capsys, "--size", "3000", "--bits", "6")
    assert heading.startswith("3,000 numbers") and len(rows) == len(_calibrators())
    x = DISTRIBUTIONS["outliers"](np.random.default_rng(0), 3000).astype(np.float32)
    obs = observers.MinMaxObserver(quant_min=0, quant_max=63)
    obs(x)
    q = obs.calculate_qparams()
    codes = np.clip(np.rint(x / np.float64(q.scale)) + q.zero_point, 0, 63)
    error = np.mean(((codes - q.zero_point) * q.scale - x) ** 2)
    low, high, cut, loss = rows["minimum and maximum"]
    assert (low, high, cut) == (f"{-q.zero_point * q.scale:.4g}", f"{(63 - q.zero_point) * q.scale:.4g}", "0.000%")
    assert float(loss) == pytest.approx(error, rel=0.01)
    losses = [float(row[-1]) for row in rows.values()]
    assert losses == sorted(losses) and losses[0] < losses[-1]


def test_numbers_of_ones_own(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 500).reshape(5, 100))
    heading, rows = table(capsys, "--data", str(tmp_path / "x.npy"))
    assert heading.startswith("500 numbers from -1 to 1, 8 bits") and len(rows) == len(_calibrators())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution(capsys, name):
    assert len(table(capsys, "--distribution", name, "--size", "1000", "--bits", "4")[1]) == len(_calibrators())


def test_bad_input_is_refused(capsys, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no array")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    for arguments, text in (
        (["--distribution", "normle"], "did you mean 'normal'"), (["--size", "10"], "too few"), (["--data", str(tmp_path / "none.npy")], "give a .npy file"),
        (["--data", str(tmp_path / "x.npy")], "give a .npy file"), (["--data", str(tmp_path / "text.npy")], "real numbers"),
    ):  # fmt: skip
        assert main(["calibrators", *arguments]) == 2 and text in capsys.readouterr().err
