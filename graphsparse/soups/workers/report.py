"""What a user sees while ingredients are trained: a bar, a log, and what went wrong."""

import warnings
from collections.abc import Sequence
from types import TracebackType

from tqdm import tqdm

from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.typing import Log

_TOLD = 30


class Report:
    """Counts ingredients that are done, running or failed, and tells of them.

    Args:
        folders: All ingredients of a call, in their order.
        progress: Whether to show a bar.
        log: Receives a dictionary for each ingredient that is finished from now on.
    """

    def __init__(self, folders: Sequence[IngredientFolder], progress: bool = False, log: Log | None = None) -> None:
        self._index = {folder.key: index for index, folder in enumerate(folders)}
        self._log = log
        self._failed: dict[str, IngredientFolder] = {}
        #: Ingredients that are neither finished nor given up.
        self.open = [folder for folder in folders if not folder.is_done()]
        done = len(folders) - len(self.open)
        self._bar = tqdm(total=len(folders), initial=done, disable=not progress, unit="ingredient")
        self._running = self._shown = -1
        for folder in list(self.open):
            if folder.is_given_up():
                self.failed(folder)

    def __enter__(self) -> "Report":
        """Show the bar."""
        self.running(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        self._bar.close()

    def running(self, number: int) -> None:
        """Show how many are being trained by this call."""
        if (number, len(self._failed)) != (self._running, self._shown):
            self._running, self._shown = number, len(self._failed)
            self._bar.set_postfix(running=max(0, number), failed=self._shown)

    def settle(self, folder: IngredientFolder) -> bool:
        """Say whether an ingredient is finished or given up, and tell of it the first time."""
        if folder not in self.open:
            return True
        if folder.is_done():
            self._finished(folder)
            return True
        if folder.is_given_up():
            self.failed(folder)
            return True
        return False

    def failed(self, folder: IngredientFolder) -> None:
        """Note that an ingredient is given up."""
        self.open.remove(folder)
        self._failed[folder.key] = folder
        self.running(self._running)

    def _finished(self, folder: IngredientFolder) -> None:
        self.open.remove(folder)
        meta = folder.read_meta()
        index = self._index[folder.key]
        self._bar.update()
        for note in meta["notes"]:
            warnings.warn(f"ingredient {index} ({folder.key}): {note}", UserWarning, stacklevel=2)
        if self._log is not None:
            names = ("val", "train", "best_epoch", "epochs_run", "seconds", "attempts")
            self._log({"index": index, **{name: meta[name] for name in names}})

    def check(self) -> None:
        """Raise an error if an ingredient was given up.

        Raises:
            IngredientError: Names the ingredients and shows the traceback of the first.
        """
        if not self._failed:
            return
        first = next(iter(self._failed.values()))
        text = first.given_up.read_text().strip().splitlines()
        shown = "\n".join(f"    {line}" for line in text[-_TOLD:])
        numbers = ", ".join(str(self._index[key]) for key in self._failed)
        places = "\n".join(f"    {folder.given_up}" for folder in self._failed.values())
        raise IngredientError(
            f"{len(self._failed)} of {len(self._index)} ingredients failed (index {numbers}); all others are in the "
            f"store. What happened to ingredient {self._index[first.key]}:\n{shown}\n"
            f"To try again, delete these files and repeat the call:\n{places}"
        )
