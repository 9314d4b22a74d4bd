"""Jobs that note where they ran. Other processes import this too, and without torch they do it at once."""

import json
import os
import time
from pathlib import Path


def run_group(group, setting):
    """Square numbers, note the group, and fail where a job says so."""
    with Path(setting["notes"]).open("a") as file:
        file.write(json.dumps([os.getpid(), [job["number"] for job in group]]) + "\n")
    if any(job.get("fails") for job in group):
        raise ValueError("this job fails")
    return [{**job, "result": setting["factor"] * job["number"] ** 2} for job in group]


def wait(group, setting):
    """Note the process and go on for a minute."""
    Path(setting["notes"]).write_text(str(os.getpid()))
    time.sleep(60)
