"""Train ingredients in this process, one after the other."""

import time
import traceback

from graphsparse.soups.store.failures import BACK_OFF, is_storage_error, is_transient, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.job import Job
from graphsparse.soups.workers.report import Report
from graphsparse.soups.workers.run_ingredient import BUSY, run_ingredient

#: Seconds between two looks at ingredients that other processes train.
LOOK = 0.5


def run_here(job: Job, report: Report) -> None:
    """Train all open ingredients in this process, for debuggers and notebooks.

    Ingredients that another process trains are waited for.

    Args:
        job: Model and functions.
        report: Which ingredients are open, and who is told.

    Raises:
        OSError: If the store cannot be written.
    """
    while report.open:
        before = len(report.open)
        for folder in list(report.open):
            if report.settle(folder):
                continue
            report.running(1)
            if attempt(folder, job) != BUSY:
                report.settle(folder)
            report.running(0)
        if len(report.open) == before:
            time.sleep(LOOK)


def attempt(folder: IngredientFolder, job: Job) -> str:
    """Try to train an ingredient, as often as it makes sense; what went wrong is noted in its folder.

    Args:
        folder: The ingredient.
        job: Model and functions.

    Returns:
        ``"done"``, ``"busy"`` or ``"failed"``.

    Raises:
        OSError: If the store cannot be written.
    """
    while True:
        try:
            return run_ingredient(folder.store, folder.key, job)
        except Exception as error:
            if is_storage_error(error, folder.store):
                raise storage_error(folder.store, error) from error
            if folder.record_failure(traceback.format_exc(), lasting=not is_transient(error)):
                return "failed"
        time.sleep(BACK_OFF * 2 ** (len(folder.failures()) - 1))
