"""Long sequences on disk, so that lists of a million stickers take little memory."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from rdtf.files import disk_errors, read_at

T = TypeVar("T")


def without(values: array[int], positions: Iterable[int]) -> array[int]:
    """The values at all other positions."""
    left_out = set(positions)
    kept = (value for position, value in enumerate(values) if position not in left_out)
    return array(values.typecode, kept) if left_out else values


class DiskList(Sequence[T], Generic[T]):
    """A sequence in a temporary file without a name, which is deleted when the process ends.

    An entry takes 12 bytes of memory. Entries are pickled, which is safe because no other process can write the file.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as this object lives
        self._starts, self._lengths = array("Q"), array("I")
        self._end = 0
        self._flushed = True

    def append(self, value: T) -> None:
        """Add an entry."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        try:
            self._file.write(data)
        except OSError:
            with disk_errors(Path(tempfile.gettempdir())):
                raise
        self._flushed = False
        self._starts.append(self._end)
        self._lengths.append(len(data))
        self._end += len(data)

    def remove(self, positions: Iterable[int]) -> None:
        """Remove the entries at these positions."""
        positions = list(positions)
        self._starts, self._lengths = without(self._starts, positions), without(self._lengths, positions)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        return pickle.loads(read_at(self._file, self._lengths[index], self._starts[index]))
