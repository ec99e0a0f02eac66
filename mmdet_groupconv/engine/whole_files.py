"""A storage backend of MMEngine that writes files whole or not at all."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..checkpoints import whole_file

BACKEND = 'whole_local'


class UnwrittenError(OSError):
    """A file of a run can't be written, for want of room, say."""


class WholeFiles(LocalBackend):
    """Local files that get their names when all of them is on the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file in the place of what has its name.

        Raises UnwrittenError that names the file; then all is as it was.
        """
        try:
            os.makedirs(os.path.dirname(filepath), exist_ok=True)
            with whole_file(filepath) as temporary, open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UnwrittenError(f'{filepath} can not be written: {error.strerror}') from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """See :meth:`put`."""
        self.put(obj.encode(encoding), filepath)


register_backend(BACKEND, WholeFiles, force=True)
