"""A timeline of up to 16 slots: pinned frames stay, the model fills the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rdtf.options import MAX_FRAMES


@dataclass(frozen=True)
class Slot:
    """A frame in a slot.

    Attributes:
        key: of the sticker in the library that it comes from. frame: its place there.
        pinned: it stays as it is; otherwise the model has made it and makes it anew.
    """

    key: str
    frame: int
    pinned: bool = True


@dataclass(frozen=True)
class Timeline:
    """Slots in the order of time, and the one that is worked on. Each method returns a new timeline."""

    slots: tuple[Slot | None, ...] = (None,) * 8
    at: int = 0

    def resized(self, count: int) -> Timeline:
        """With as many slots; those beyond are dropped."""
        count = min(max(count, 1), MAX_FRAMES)
        slots = (*self.slots, *(None,) * MAX_FRAMES)[:count]
        return Timeline(slots, min(self.at, count - 1))

    def chosen(self, at: int) -> Timeline:
        """Working on another slot."""
        return replace(self, at=min(max(at, 0), len(self.slots) - 1))

    def placed(self, frames: Sequence[Slot]) -> Timeline:
        """With frames from the chosen slot on, as far as there are slots; then the next slot is chosen."""
        slots = list(self.slots)
        room = min(len(frames), len(slots) - self.at)
        slots[self.at : self.at + room] = frames[:room]
        return Timeline(tuple(slots), min(self.at + room, len(slots) - 1))

    def replaced(self, at: int, slot: Slot | None) -> Timeline:
        """With something else in one slot."""
        return replace(self, slots=(*self.slots[:at], slot, *self.slots[at + 1 :]))

    def cleared(self) -> Timeline:
        """With nothing in the chosen slot."""
        return self.replaced(self.at, None)

    def pinned(self, *, only: int | None = None, but: int | None = None) -> Timeline:
        """With the frames that were made pinned: all, ``only`` one of them, or all ``but`` one, which is made anew."""
        slots = []
        for i, slot in enumerate(self.slots):
            if slot is not None and but is not None:
                slot = replace(slot, pinned=i != but)
            elif slot is not None and only in (None, i):
                slot = replace(slot, pinned=True)
            slots.append(slot)
        return replace(self, slots=tuple(slots))

    def longer(self, before: int, after: int) -> Timeline:
        """With empty slots in front and behind.

        Raises:
            ValueError: there would be more than 16.
        """
        if (total := before + len(self.slots) + after) > MAX_FRAMES:
            raise ValueError(f"{total} slots are too many; at most {MAX_FRAMES} are possible")
        return Timeline(((None,) * before + self.slots + (None,) * after), self.at + before)

    def filled(self, key: str) -> Timeline:
        """With the frames of a sticker that was made around the pinned ones."""
        slots = (s if s is not None and s.pinned else Slot(key, i, pinned=False) for i, s in enumerate(self.slots))
        return replace(self, slots=tuple(slots))

    def pins(self) -> list[tuple[int, str, int]]:
        """Position, sticker and frame of what is pinned."""
        return [(i, slot.key, slot.frame) for i, slot in enumerate(self.slots) if slot is not None and slot.pinned]
