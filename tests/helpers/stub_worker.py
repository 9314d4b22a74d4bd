"""Stands for the worker process of an ingredient, without torch: it obeys a file ``order.json`` beside the store.

The order of an ingredient is a list of what to do in its attempts, one after the other; the last one is repeated.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

META = {
    "index": 0,
    "weights": "none",
    "val": 0.5,
    "train": 0.5,
    "best_epoch": 0,
    "epochs_run": 1,
    "seconds": 0.1,
    "attempts": 1,
    "notes": [],
}


def main(job_file, store, key, token, threads, parent):
    folder = Path(store) / "ingredients" / key
    notes = Path(store) / "notes"
    notes.mkdir(exist_ok=True)
    attempt = len(list(notes.glob(f"{key}.*")))
    note = {
        "begin": time.time(),
        "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
        "threads": [threads, os.environ["OMP_NUM_THREADS"]],
        "pid": os.getpid(),
        "parent": int(parent),
        "mode": oct(Path(job_file).parent.stat().st_mode)[-3:],
    }
    path = notes / f"{key}.{attempt}"
    path.write_text(json.dumps(note))
    orders = json.loads((Path(store) / "order.json").read_text())[key]
    order = orders[min(attempt, len(orders) - 1)]
    if order == "done":
        (folder / "meta.json").write_text(json.dumps(META))
        (folder / "DONE").touch()
    elif order == "hang":
        time.sleep(60)
    elif order == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path.with_name("ready").touch()
        time.sleep(60)
    elif order == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == "full":
        end = time.time() + 30
        while all(other.name.startswith(key) for other in notes.iterdir()) and time.time() < end:
            time.sleep(0.01)  # others are at work when the disk gets full
        print("Traceback: no space")
        print("OSError: [Errno 28] No space left on device")
        return 13
    elif isinstance(order, float):
        time.sleep(order)
        (folder / "meta.json").write_text(json.dumps(META))
        (folder / "DONE").touch()
    else:
        print(f"attempt {attempt} ends with {order}", file=sys.stderr)
        return order
    path.write_text(json.dumps({**note, "end": time.time()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
