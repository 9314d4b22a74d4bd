"""What a process does that trains one ingredient; its arguments are those of :func:`main`."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

from graphsparse.soups.store.failures import IS_BUSY, LASTING, STORAGE, TRY_AGAIN, is_storage_error, is_transient
from graphsparse.soups.workers.job import apply_settings, load_job
from graphsparse.soups.workers.run_ingredient import BUSY, run_ingredient


def main(arguments: Sequence[str]) -> int:
    """Train an ingredient and return how it went.

    Args:
        arguments: Job file, store, key, number of threads, and number of the process that started this one.
    """
    job_file, store, key, threads, parent = arguments
    signal.signal(signal.SIGTERM, _leave)
    _leave_with(int(parent))
    try:
        torch.set_num_threads(int(threads))
        job = load_job(Path(job_file).read_bytes())
        apply_settings(job.settings)
        return IS_BUSY if run_ingredient(store, key, job) == BUSY else 0
    except Exception as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        if is_storage_error(error, store):
            with contextlib.suppress(OSError):
                # The last line, for the one who started this process.
                sys.stderr.write(json.dumps({"errno": getattr(error, "errno", None), "error": str(error)}) + "\n")
            return STORAGE
        return TRY_AGAIN if is_transient(error) else LASTING


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order, so that the lease is given back."""
    raise SystemExit(128 + number)


def _leave_with(parent: int) -> None:
    """End when the process that started this one is gone: nobody would wait for it, and it would keep its device."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
