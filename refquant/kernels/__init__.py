"""The Numba kernels: products, convolutions, output stages and elementwise loops on plain arrays.

A kernel takes arrays and small integers, never a profile, and never raises: `refquant.ops` checks the arguments
before. Importing this package imports Numba; ``import refquant`` alone does not.
"""
