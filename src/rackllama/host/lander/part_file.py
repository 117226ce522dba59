"""The file under way: pieces are written past the page cache where nobody will read them from there."""

import errno
import os
from typing import Any, Optional

from ..errors import RackllamaError
from .grains import GRAIN_BYTES

O_DIRECT = getattr(os, "O_DIRECT", 0)


class PartFile:
    """An open part file; all threads write and read at their own places.

    A model is larger than most page caches. Writing it past the cache costs a fraction of the processor's time, and
    leaves in memory what the host is serving meanwhile.
    """

    def __init__(self, descriptor: int) -> None:
        """`descriptor` stays its owner's to close."""
        self.descriptor = descriptor
        self._direct = _opened_directly(descriptor)
        self._refuses_direct = False

    def write(self, view: memoryview, offset: int, is_kept: bool) -> None:
        """Write a piece. One that `is_kept` in memory is not read back soon; it begins at a page."""
        direct = self._direct
        is_whole = len(view) == GRAIN_BYTES and not offset % GRAIN_BYTES
        if direct is not None and is_kept and is_whole and not self._refuses_direct:
            try:
                write_fully(direct, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._refuses_direct = True  # the file system opens files so, and does not write them
            else:
                return
        write_fully(self.descriptor, view, offset)

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view`."""
        while view:
            count = os.preadv(self.descriptor, [view], offset)
            if not count:
                raise RackllamaError("the part file was cut short while it was landed", "leave it alone, and run again")
            view, offset = view[count:], offset + count

    def close(self) -> None:
        """Close what was opened here."""
        if self._direct is not None:
            os.close(self._direct)


def write_fully(descriptor: int, data: Any, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _opened_directly(descriptor: int) -> Optional[int]:
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC | O_DIRECT) if O_DIRECT else None
    except OSError:
        return None  # not every file system can
