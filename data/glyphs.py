"""Pictures of single letters and digits, drawn from the fonts that matplotlib brings along."""

import functools
import string
from pathlib import Path

import numpy as np

from .warp import random_affines, warp

#: The 62 classes; a label is a place in this string.
CLASSES = string.digits + string.ascii_uppercase + string.ascii_lowercase

#: Font files with upright or italic Latin text, under matplotlib's ``mpl-data/fonts/ttf``.
FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSansMono-Oblique.ttf", "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf",
    "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmti10.ttf", "cmtt10.ttf",
)

SIZE = 32
CALIBRATION_SIZE, CALIBRATION_SEED = 512, 1
TEST_SIZE, TEST_SEED = 2048, 2
#: Epoch e of the training draws its images from seed ``TRAIN_SEED + e``.
TRAIN_SEED = 1000

_CANVAS = 64
_EM = 44
_BASELINE = 45


def make_splits():
    """The calibration and test images as ``glyphs.npz`` holds them; for the keys see `refquant.data.load_arrays`."""
    arrays = {}
    for split, n, seed in (("calibration", CALIBRATION_SIZE, CALIBRATION_SEED), ("test", TEST_SIZE, TEST_SEED)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = make_glyphs(n, seed)
    return arrays


def make_glyphs(n, seed):
    """Draw n pictures of random classes in random fonts, as a cheap camera would see them.

    Each glyph is turned, leaned, stretched, shifted and blurred; ink and paper differ in brightness from picture to
    picture, noise is added, and one picture in eight has hot pixels, which are far brighter than any ink.

    Parameters
    ----------
    n : int
    seed : int
        The same seed gives the same pictures (with the same versions of matplotlib and NumPy).

    Returns
    -------
    images : numpy.ndarray
        uint8 (n, 1, 32, 32), ink brighter than paper.
    labels : numpy.ndarray
        int64 (n,), places in `CLASSES`.
    """
    rng = np.random.default_rng(seed)
    masters = _masters()
    labels = rng.integers(len(CLASSES), size=n)
    fonts = rng.integers(len(FONTS), size=n)
    matrices, shifts = random_affines(rng, n, rotation=15, shear=0.2, scale=0.18, shift=5)
    # A picture shows the canvas at half its resolution.
    ink = warp(masters, fonts * len(CLASSES) + labels, matrices * (_CANVAS / SIZE), shifts, SIZE) / np.float32(255)
    ink = _blur(ink, rng.uniform(0, 1, n).astype(np.float32))

    paper = rng.uniform(0, 40, (n, 1, 1))
    contrast = rng.uniform(30, 110, (n, 1, 1))
    noise = rng.normal(0, 1, ink.shape) * rng.uniform(2, 10, (n, 1, 1))
    hot = rng.random(ink.shape) < np.where(rng.random((n, 1, 1)) < 1 / 8, 0.01, 0)
    pictures = np.where(hot, 255, paper + contrast * ink + noise)
    return np.clip(pictures, 0, 255).astype(np.uint8)[:, None], labels.astype(np.int64)


def _blur(pictures, amounts):
    """Each picture's [a/4, 1 - a/2, a/4] filter along both axes; a = 1 is the binomial filter."""
    side = amounts[:, None, None] / 4
    for axis in (1, 2):
        neighbours = np.zeros_like(pictures)
        to, source = [slice(None)] * 3, [slice(None)] * 3
        to[axis], source[axis] = slice(1, None), slice(None, -1)
        neighbours[tuple(to)] += pictures[tuple(source)]
        neighbours[tuple(source)] += pictures[tuple(to)]
        pictures = pictures * (1 - 2 * side) + neighbours * side
    return pictures


@functools.cache
def _masters():
    """Every glyph of every font once: uint8 (fonts * classes, 64, 64), centred sideways, on one baseline."""
    import matplotlib
    from matplotlib.ft2font import FT2Font, LoadFlags

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    missing = [file for file in FONTS if not (folder / file).is_file()]
    if missing:
        from refquant.errors import BackendMissing

        raise BackendMissing(
            f"make_glyphs: matplotlib {matplotlib.__version__} has no {missing[0]}; drawing glyphs needs its fonts of 3.11: pip install 'matplotlib>=3.11'"
        )
    masters = np.zeros((len(FONTS) * len(CLASSES), _CANVAS, _CANVAS), np.uint8)
    place = 0
    for file in FONTS:
        font = FT2Font(str(folder / file))
        font.set_size(_EM, 72)
        for character in CLASSES:
            font.set_text(character, 0.0, flags=LoadFlags.NO_HINTING)
            font.draw_glyphs_to_bitmap(antialiased=True)
            bitmap = np.asarray(font.get_image())
            # Neither the bitmap's origin nor its padding is documented, so the ink itself is what gets placed.
            rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
            ink = bitmap[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
            bottom = _BASELINE + -(-font.get_descent() // 64)
            left = (_CANVAS - ink.shape[1]) // 2
            masters[place, bottom - ink.shape[0]:bottom, left:left + ink.shape[1]] = ink
            place += 1
    return masters
