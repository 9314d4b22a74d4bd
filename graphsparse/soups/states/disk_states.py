"""State dicts that wait in files."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from graphsparse.soups.states.states import State


class DiskStates:
    """State dicts in the order they were added, read from disk one at a time.

    Args:
        folder: An existing folder for the files, which stay there.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     states = DiskStates(folder)
        ...     states.append({"w": torch.ones(2)})
        ...     states[0]
        {'w': tensor([1., 1.])}
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder, self._devices = Path(folder), list[str]()

    def append(self, state: State) -> None:
        """Write a state dict.

        Args:
            state: State dict, all of it on one device.
        """
        # Copies of their own: tied tensors share memory, which the format refuses.
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
        save_file(tensors, self._path(len(self)))
        self._devices.append(str(next(iter(state.values())).device))

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self._devices)

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        """Return a state dict."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} states (asked for {index})")
        state: dict[str, Tensor] = load_file(self._path(index), device=self._devices[index])
        return state

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.safetensors"
