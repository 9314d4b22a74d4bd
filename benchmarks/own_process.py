"""Figures of a process of its own: its peak memory, and how its parent starts it and reads the result."""

import ctypes
import json
import os
import resource
import subprocess
import sys

import torch

#: Makes glibc keep freed blocks instead of giving them back to the system and taking them anew, page by page.
#: The limits are above every block: messages on all edges of ogbn-arxiv at width 256 take 2.4 GB.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**36), "MALLOC_TRIM_THRESHOLD_": str(2**36)}


def run_apart(script, arguments, *, keep_memory=False):
    """Run a script in a new process and return the JSON object of its last line."""
    command = [sys.executable, "-W", "ignore", str(script), *arguments]
    environment = os.environ | (KEEP_MEMORY if keep_memory else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def held_gb():
    """Return the memory that the process holds now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


def reset_peak(*, give_back=False):
    """Forget the peak so far, and return the memory held now in GB.

    With ``give_back`` glibc first returns freed blocks to the system: what takes their place is then seen in the peak.
    """
    if give_back:
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")
    return held_gb()


def peak_gb():
    """Return the largest memory that the process held since the last :func:`reset_peak`."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e9


def warm_up():
    """Train a tiny model for one step: what torch imports and starts on the way belongs to no measurement."""
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    torch.nn.functional.cross_entropy(model(torch.zeros(4, 4)), torch.zeros(4, dtype=torch.int64)).backward()
    optimizer.step()
