"""scikit-learn's handwritten digits, split once."""

import numpy as np

SEED = 20240229
SIZES = {"train": 1097, "calibration": 200, "test": 500}


def make_digits():
    """Split scikit-learn's 1,797 digits into train, calibration and test, stratified by label.

    Returns
    -------
    dict of str to numpy.ndarray
        For each split ``<split>_images`` uint8 (N, 1, 8, 8) with values 0 to 16, ``<split>_labels`` int64 (N,),
        and ``<split>_indices`` int64 (N,), the rows' places in scikit-learn's data set, ascending.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    everything = np.arange(len(source.target))
    rest, test = train_test_split(
        everything, test_size=SIZES["test"], random_state=SEED, stratify=source.target)
    train, calibration = train_test_split(
        rest, test_size=SIZES["calibration"], random_state=SEED, stratify=source.target[rest])

    arrays = {}
    for split, chosen in zip(SIZES, (train, calibration, test)):
        indices = np.sort(chosen).astype(np.int64)
        arrays[f"{split}_images"] = source.images[indices].astype(np.uint8)[:, None]
        arrays[f"{split}_labels"] = source.target[indices].astype(np.int64)
        arrays[f"{split}_indices"] = indices
    return arrays
