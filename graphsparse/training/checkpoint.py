"""A file from which a killed training goes on."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from graphsparse.utils.atomic_write import atomic_write, is_whole

#: What tells one training from another: names and plain values.
Identity: TypeAlias = Mapping[str, str | int | float | bool | None]

FORMAT = "graphsparse training 1"
#: Without ``every``, the seconds of work that a kill may cost, and how often the time of a save must pass between two.
SECONDS, TIMES = 10.0, 20.0


class Checkpoint:
    """A file that holds how far a training is; it is whole at any time, and ``weights_only`` reads it.

    Args:
        path: The file; its folder is made when it is missing.
        every: Save after every so many epochs. When ``None``, after the first epoch that ends 10 seconds or more after
            the last save, or later where saving would take more than a twentieth of the time.
        identity: What tells this training from others; a file of another one is refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Checkpoint(f"{folder}/a.pt", 5, {"seed": 0}).write({"epoch": 3})
        ...     Checkpoint(f"{folder}/a.pt", 5, {"seed": 0}).load()["epoch"]
        3
    """

    def __init__(self, path: str | Path, every: int | None, identity: Identity) -> None:
        self.path = Path(path)
        self.every = every
        self.identity = dict(identity)
        self._last = time.monotonic()
        self._cost = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, ``None`` if there is no file.

        Raises:
            ValueError: If the file is none of a training, or one of another training; the message says what differs.
        """
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(
                f"'checkpoint' {str(self.path)!r} cannot be read as one of a training: {_reason(error)}"
            ) from error
        if not is_whole(self.path):
            raise ValueError(
                f"'checkpoint' {str(self.path)!r} is damaged: it does not hold what was saved. Delete it to start anew"
            )
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise ValueError(f"'checkpoint' {str(self.path)!r} is no checkpoint of a training of this release")
        differences = _differences(saved["identity"], self.identity)
        if differences:
            raise ValueError(
                f"'checkpoint' {str(self.path)!r} belongs to another training: {differences}. "
                "Name another file, or delete this one to start anew"
            )
        return saved

    def due(self, epochs_run: int) -> bool:
        """Say whether it is time to save after so many epochs."""
        if self.every is not None:
            return epochs_run % self.every == 0
        return time.monotonic() - self._last >= max(SECONDS, TIMES * self._cost)

    def write(self, content: Mapping[str, Any]) -> None:
        """Put the content in the place of what was saved last.

        Raises:
            TypeError: If it holds something that ``weights_only`` would not read again.
        """
        start = time.monotonic()
        with atomic_write(self.path) as temporary:
            torch.save({"format": FORMAT, "identity": self.identity, **content}, temporary)
            try:
                # Mapped, not read: this looks at the structure, not at the numbers.
                torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:
                raise TypeError(
                    "'checkpoint' cannot hold the state of the model, the optimizer or the scheduler, which must "
                    f"consist of tensors and plain values: {_reason(error)}"
                ) from error
        self._last = time.monotonic()
        self._cost = self._last - start


def _reason(error: Exception) -> str:
    """Return the line of an error that says what is wrong; PyTorch wraps it in advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "WeightsUnpickler" in line]
    return (told or lines or [type(error).__name__])[0]


def _differences(saved: Identity, now: Identity) -> str:
    found = []
    for name in [*saved, *(name for name in now if name not in saved)]:
        if name not in now or name not in saved or saved[name] != now[name]:
            found.append(f"{name} was {saved.get(name, 'missing')} and is now {now.get(name, 'missing')}")
    more = "" if len(found) <= 3 else f"; and {len(found) - 3} more"
    return "; ".join(found[:3]) + more
