"""The exact vocabulary: rounding, wrapping and saturation, dtypes, quantization parameters, the affine map and requantization.

Nothing here knows an engine. Every function says in its arguments what it does, needs
NumPy alone and is the readable reference against which the Numba kernels are held.
"""
