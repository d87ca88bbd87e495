"""Random affine distortion of images, in plain NumPy."""

import numpy as np


def random_affines(rng, n, *, rotation, shear, scale, shift):
    """n maps from output to input coordinates, both measured from the image's centre.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    rotation : float
        Largest angle, in degrees.
    shear : float
        Largest horizontal shear.
    scale : float
        Each axis is scaled by exp(u), |u| <= scale.
    shift : float
        Largest shift along each axis, in input pixels.

    Returns
    -------
    matrices : numpy.ndarray
        float64 (n, 2, 2), on (row, column).
    shifts : numpy.ndarray
        float64 (n, 2).
    """
    angle = np.deg2rad(rng.uniform(-rotation, rotation, n))
    lean = rng.uniform(-shear, shear, n)
    stretch = np.exp(rng.uniform(-scale, scale, (n, 2)))
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.empty((n, 2, 2))
    matrices[:, 0, 0] = cos * stretch[:, 0]
    matrices[:, 0, 1] = -sin * stretch[:, 1]
    matrices[:, 1, 0] = (sin + lean * cos) * stretch[:, 0]
    matrices[:, 1, 1] = (cos - lean * sin) * stretch[:, 1]
    return matrices, rng.uniform(-shift, shift, (n, 2))


def warp(images, chosen, matrices, shifts, size):
    """Sample images bilinearly at affinely mapped positions; outside of an image all is zero.

    Parameters
    ----------
    images : numpy.ndarray
        (M, H, W), of any real dtype.
    chosen : numpy.ndarray
        int (n,): which image each output is taken from.
    matrices, shifts : numpy.ndarray
        (n, 2, 2) and (n, 2), as `random_affines` makes them.
    size : int
        Height and width of the outputs.

    Returns
    -------
    numpy.ndarray
        float32 (n, size, size).
    """
    height, width = images.shape[1:]
    bordered = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    flat = bordered.reshape(-1)
    centred = np.arange(size) - (size - 1) / 2
    out = np.empty((len(chosen), size, size), np.float32)
    for start in range(0, len(chosen), 256):
        part = slice(start, start + 256)
        a, b = matrices[part], shifts[part]
        row = a[:, 0, 0, None, None] * centred[:, None] + a[:, 0, 1, None, None] * centred + b[:, 0, None, None]
        column = a[:, 1, 0, None, None] * centred[:, None] + a[:, 1, 1, None, None] * centred + b[:, 1, None, None]
        # Positions in the bordered image; the border is where everything outside ends up, and it is zero.
        row = np.clip(row + (height - 1) / 2 + 1, 0, height + 1)
        column = np.clip(column + (width - 1) / 2 + 1, 0, width + 1)
        top = np.minimum(row.astype(np.int64), height)
        left = np.minimum(column.astype(np.int64), width)
        down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
        base = (chosen[part, None, None] * (height + 2) + top) * (width + 2) + left
        upper = flat[base] * (1 - right) + flat[base + 1] * right
        lower = flat[base + width + 2] * (1 - right) + flat[base + width + 3] * right
        out[part] = upper * (1 - down) + lower * down
    return out
