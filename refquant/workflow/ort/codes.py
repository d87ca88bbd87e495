"""`Codes`: where the codes of a value are."""

from typing import NamedTuple

__all__ = ["Codes"]


class Codes(NamedTuple):
    """The names of a value's codes, scale and zero point, and the axis of its channels."""

    codes: str
    scale: str
    zero_point: str
    axis: object = None

    @property
    def triple(self):
        """The names in the order in which operators take them."""
        return [self.codes, self.scale, self.zero_point]
