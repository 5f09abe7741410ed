"""Long sequences that are held on disk, so that what there is of a million stickers takes no memory."""

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
    """The values that are not at these positions."""
    left_out = set(positions)
    kept = (value for position, value in enumerate(values) if position not in left_out)
    return array(values.typecode, kept) if left_out else values


class DiskList(Sequence[T], Generic[T]):
    """A sequence to append to, in a temporary file without a name, which goes with the process.

    In memory are 12 bytes an entry. The file is written and read by this process alone, so that it may hold pickles.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as this object lives
        self._starts, self._lengths = array("Q"), array("I")
        self._end = 0
        self._flushed = True

    def append(self, value: T) -> None:
        """Add one."""
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
        """Take out those at these positions."""
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
