"""The small data sets and trained networks that refquant is tried on.

Two data sets (``digits``, ``glyphs``) and three networks trained on them (``digits_resnet``,
``digits_mobilenet``, ``glyphs_net``), each one ``.npz`` file of plain arrays. Reading them needs
NumPy alone; the networks as PyTorch modules are in `refquant.data.architectures_torch`, and
``python -m refquant.data.make_data`` makes every file anew. Sources and licences: ``README.md``.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

#: Each data set, and the value that its uint8 images are divided by to give a network's input.
DATASETS = {"digits": 16, "glyphs": 255}

#: Each trained network, and the data set it was trained on.
NETWORKS = {"digits_resnet": "digits", "digits_mobilenet": "digits", "glyphs_net": "glyphs"}

#: The parts of a data set. ``glyphs`` has no "train": it is drawn anew from a seed.
SPLITS = ("train", "calibration", "test")

_FOLDER = Path(__file__).resolve().parent


def path(name):
    """Where the file of a data set or a network lies.

    Parameters
    ----------
    name : str
        A key of `DATASETS` or `NETWORKS`.

    Returns
    -------
    pathlib.Path
        The ``.npz`` file. Whether it exists is for `load_arrays` to say.

    Raises
    ------
    ArgumentError
        If no data set and no network has that name.

    Examples
    --------
    >>> path("digits").name
    'digits.npz'
    """
    from refquant.errors import choose

    return _FOLDER / f"{choose('data.path', 'name', name, [*DATASETS, *NETWORKS])}.npz"


def load_arrays(name):
    """The arrays of a data set or a network, checked against their SHA-256.

    Parameters
    ----------
    name : str
        A key of `DATASETS` or `NETWORKS`.

    Returns
    -------
    dict of str to numpy.ndarray
        A data set: ``<split>_images`` uint8 (N, 1, H, W) and ``<split>_labels`` int64 (N,), see `SPLITS`.
        A network: float32 arrays under the names of PyTorch's ``state_dict``.

    Raises
    ------
    ArgumentError
        If no data set and no network has that name.
    RefquantError
        If the file is missing, cannot be read, or is not the file that ``checksums.json`` lists.

    Examples
    --------
    >>> load_arrays("digits_resnet")["stem.conv.weight"].shape
    (16, 1, 3, 3)
    """
    file = path(name)
    content = _read(file)
    listing = _FOLDER / "checksums.json"
    try:
        expected = json.loads(_read(listing)).get(file.name)
    except ValueError as error:
        raise _broken(f"{listing} must be JSON but is not ({error})") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise _broken(f"{file} must have SHA-256 {expected} (checksums.json) but has {actual}")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load_split(name, split):
    """One part of a data set, ready to be fed to the networks trained on it.

    Parameters
    ----------
    name : str
        A key of `DATASETS`, or of `NETWORKS`, which stands for its data set.
    split : str
        One of `SPLITS`.

    Returns
    -------
    x : numpy.ndarray
        float32 (N, 1, H, W), in [0, 1]: the uint8 image divided by 16 (digits) or 255 (glyphs), rounded once.
    labels : numpy.ndarray
        int64 (N,).

    Raises
    ------
    ArgumentError
        If the data set is not known or has no such part.
    RefquantError
        As `load_arrays`.

    Examples
    --------
    >>> x, labels = load_split("digits", "calibration")
    >>> x.shape, x.dtype, float(x.max())
    ((200, 1, 8, 8), dtype('float32'), 1.0)
    """
    from refquant.errors import choose

    name = choose("data.load_split", "name", name, [*DATASETS, *NETWORKS])
    dataset = NETWORKS.get(name, name)
    arrays = load_arrays(dataset)
    choose(f"data.load_split[{dataset}]", "split", split, [s for s in SPLITS if f"{s}_images" in arrays])
    x = arrays[f"{split}_images"].astype(np.float32) / np.float32(DATASETS[dataset])
    return x, arrays[f"{split}_labels"]


def _read(file):
    try:
        return file.read_bytes()
    except OSError as error:
        raise _broken(f"{file} must be a readable file but is not ({error.strerror})") from error


def _broken(what):
    from refquant.errors import RefquantError

    remedy = "reinstall refquant, or make the file anew with `python -m refquant.data.make_data`"
    return RefquantError(f"data.load_arrays: {what}; {remedy}")
