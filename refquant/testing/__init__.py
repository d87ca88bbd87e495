"""The door for tests outside of refquant: compare by bits, say where and by how much bits differ, and why.

Names load when they are asked for, because pytest imports `refquant.testing.pytest_plugin` on every start.

>>> import numpy as np
>>> from refquant.testing import assert_bitexact
>>> assert_bitexact(np.uint8([1, 2]), np.uint8([1, 2]))
"""

from importlib import import_module

_VERIFY = (
    "Case", "Check", "Comparison", "Problem", "Runner", "Status", "assert_bitexact", "build", "campaign", "check", "compare", "default_cases", "oracle", "runner", "shrink", "try_case",
)  # fmt: skip
_MODULES = ("strategies",)

__all__ = [*_VERIFY, *_MODULES]


def __getattr__(name):
    if name in _VERIFY:
        value = getattr(import_module("refquant.verify"), name)
    elif name in _MODULES:
        value = import_module(f"refquant.testing.{name}")
    else:
        raise AttributeError(f"module 'refquant.testing' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
