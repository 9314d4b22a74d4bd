"""The one supervisor: it claims ingredients, lets a pool train them, and says what became of them."""

import time
import warnings
from collections.abc import Sequence
from typing import Protocol

from tqdm import tqdm

from graphsparse.soups.store.claim import Claims
from graphsparse.soups.store.failures import IngredientError, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.run_ingredient import LASTING, LOST, STORAGE, Outcome
from graphsparse.typing import Log

#: Seconds to wait before an ingredient is tried again, doubled with each failure.
BACK_OFF = 1.0
#: Seconds between two looks at ingredients that other processes train.
LOOK = 0.5
#: Lines of a traceback that are shown.
_TOLD = 30


class Pool(Protocol):
    """Where ingredients are trained, several at once."""

    #: Most ingredients at once.
    size: int

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Begin to train an ingredient, under the claim of this token."""

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return keys and outcomes of those that have ended, after so many seconds at most."""

    def stop(self) -> None:
        """End what still runs, and wait until it has ended."""


def supervise(pool: Pool, report: "Report") -> None:
    """Train all open ingredients; those that another supervisor trains are waited for.

    A process that ends without a result, for whatever reason, costs its own ingredient only, which is tried again.
    """
    running: dict[str, IngredientFolder] = {}
    not_before: dict[str, float] = {}
    looked = time.monotonic()
    with Claims() as claims:
        try:
            while report.open:
                for folder in _waiting(report, running):
                    if len(running) >= pool.size:
                        break
                    if time.monotonic() < not_before.get(folder.key, 0) or report.settle(folder):
                        continue
                    if not claims.take(folder.path):
                        not_before[folder.key] = time.monotonic() + LOOK
                    elif report.settle(folder):  # another supervisor has just finished it
                        claims.release(folder.path)
                    else:
                        running[folder.key] = folder
                        report.running(len(running))
                        pool.start(folder, claims.token)
                for key, outcome in pool.poll(LOOK):
                    folder = running.pop(key)
                    if _failed(folder, outcome, claims):
                        not_before[key] = time.monotonic() + BACK_OFF * 2 ** (len(folder.failures()) - 1)
                    claims.release(folder.path)
                    report.settle(folder)
                report.running(len(running))
                if time.monotonic() - looked >= LOOK:
                    for folder in _waiting(report, running):
                        report.settle(folder)
                    looked = time.monotonic()
        finally:
            pool.stop()


def _waiting(report: "Report", running: dict[str, IngredientFolder]) -> list[IngredientFolder]:
    return [folder for folder in report.open if folder.key not in running]


def _failed(folder: IngredientFolder, outcome: Outcome, claims: Claims) -> bool:
    """Say whether an attempt has to be repeated later, and note what went wrong."""
    if outcome.code == STORAGE:
        raise storage_error(folder.store, outcome.told)
    if folder.is_done() or outcome.code == LOST or not claims.is_mine(folder.path):
        return False
    return not folder.record_failure(outcome.told, lasting=outcome.code == LASTING)


class Report:
    """Counts ingredients that are done, running or failed, and tells of them.

    Args:
        folders: All ingredients of a call, in their order.
        progress: Whether to show a bar; a string names it.
        log: Receives a dictionary for each ingredient that is finished from now on.
        warn: Whether to warn of what went wrong in the training of those.
    """

    def __init__(
        self,
        folders: Sequence[IngredientFolder],
        progress: bool | str = False,
        log: Log | None = None,
        warn: bool = True,
    ) -> None:
        self._index = {folder.key: index for index, folder in enumerate(folders)}
        self._log, self._warn = log, warn
        self._failed: list[IngredientFolder] = []
        #: Ingredients that are neither finished nor given up.
        self.open = [folder for folder in folders if not folder.is_done()]
        done = len(folders) - len(self.open)
        name = progress if isinstance(progress, str) else "ingredients"
        self._bar = tqdm(total=len(folders), initial=done, disable=not progress, desc=name, unit="network")
        self._shown = (-1, -1)
        for folder in list(self.open):
            self.settle(folder)
        self.running(0)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        """Close the bar."""
        self._bar.close()

    def running(self, number: int) -> None:
        """Show how many are being trained by this call."""
        if (number, len(self._failed)) != self._shown:
            self._shown = number, len(self._failed)
            self._bar.set_postfix(running=number, failed=len(self._failed))

    def settle(self, folder: IngredientFolder) -> bool:
        """Say whether an ingredient is finished or given up, and tell of it the first time."""
        if folder not in self.open:
            return True
        if folder.is_done():
            self.open.remove(folder)
            self._tell(folder)
        elif folder.is_given_up():
            self.open.remove(folder)
            self._failed.append(folder)
        return folder not in self.open

    def _tell(self, folder: IngredientFolder) -> None:
        meta = folder.read_meta()
        index = self._index[folder.key]
        self._bar.update()
        for note in meta.get("notes") or () if self._warn else ():
            warnings.warn(f"ingredient {index} ({folder.key}): {note}", UserWarning, stacklevel=2)
        if self._log is not None:
            names = ("val", "train", "best_epoch", "epochs_run", "seconds", "attempts")
            self._log({"index": index, **{name: meta[name] for name in names if name in meta}})

    def check(self) -> None:
        """Raise an error that names the ingredients that were given up and shows what happened to the first."""
        if not self._failed:
            return
        first = self._failed[0]
        text = first.given_up.read_text(errors="replace").strip().splitlines()
        shown = "\n".join(f"    {line}" for line in text[-_TOLD:])
        numbers = ", ".join(str(self._index[folder.key]) for folder in self._failed)
        places = "\n".join(f"    {folder.given_up}" for folder in self._failed)
        raise IngredientError(
            f"{len(self._failed)} of {len(self._index)} ingredients failed (index {numbers}); all others are in the "
            f"store. What happened to ingredient {self._index[first.key]}:\n{shown}\n"
            f"To try again, delete these files and repeat the call:\n{places}"
        )
