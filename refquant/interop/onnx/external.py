"""Tensor data beside the model file: read from the model's folder, and from nowhere else."""

import os
import stat

from refquant.errors import ArgumentError

__all__ = ["ExternalData"]


class ExternalData:
    """The folder that a model's external data must lie in.

    Parameters
    ----------
    folder : str or os.PathLike
    """

    def __init__(self, folder):
        self.folder = os.path.realpath(folder)

    def read(self, tensor, size, place):
        """Return the `size` bytes of a tensor.

        Raises
        ------
        ArgumentError
            A location that is absolute, climbs out of the folder or leaves it through a link; anything but a regular file; too few bytes.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = self.resolve(entries.get("location", ""), place)
        offset = _number(entries, "offset", 0, place)
        length = _number(entries, "length", size, place)
        if length != size:
            raise ArgumentError(f"{place}: its shape needs {size} bytes but length={length} is recorded; the file is damaged, export it again")
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or offset + size > info.st_size:
                name = os.path.basename(path)
                raise ArgumentError(f"{place}: bytes {offset} … {offset + size} are not in {name!r} ({info.st_size} bytes); copy the whole data file")
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise ArgumentError(f"{place}: {os.path.basename(path)!r} ended after {len(data)} of {size} bytes; copy the whole data file")
        return data

    def resolve(self, location, place):
        """Return the path of a location inside of the folder, or say why it is refused."""
        rule = "external data must lie in the model's own folder; move it there"
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or os.path.isabs(location) or location[:1] in "/\\" or ":" in parts[0] or ".." in parts:
            raise ArgumentError(f"{place}: external location {location!r} is refused: {rule}")
        path = os.path.realpath(os.path.join(self.folder, *parts))
        if os.path.commonpath([self.folder, path]) != self.folder:
            raise ArgumentError(f"{place}: external location {location!r} leads out of the folder through a link: {rule}")
        if not os.path.isfile(path):
            raise ArgumentError(f"{place}: external file {location!r} does not exist in the model's folder; copy it there")
        return path


def _number(entries, name, default, place):
    text = entries.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ArgumentError(f"{place}: external {name}={text[:40]!r} must be a non-negative integer; the file is damaged, export it again")
    return int(text)
