"""Runs a folder of pages in children that are killed; its caller cannot fork, as the threads of its tests would be lost.

python -m tests.page_force_driver WEIGHTS FOLDER OUTPUT SECONDS KILLS SEED
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from PIL import Image

from unetctl.jobs.api import predict


def child(weights: str, folder: str, output: str) -> int:
    """Starts a run in another process."""
    pid = os.fork()
    if pid:
        return pid
    try:
        predict([folder], weights, output=output, precision="fp32", checksums=True)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def look(output: Path) -> int:
    """Decodes every file that bears a final name."""
    found = [p for p in output.rglob("*") if p.is_file() and not p.name.startswith(".")]
    for path in found:
        with Image.open(path) as image:
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                image.load()
    return len(found)


def main() -> None:
    """Kills runs at random moments, then lets one end."""
    weights, folder, output, seconds, kills, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    num_killed = num_looks = 0
    progress: list[int] = []
    for _ in range(int(kills)):
        pid = child(weights, folder, output)
        until = time.monotonic() + rng.uniform(0, float(seconds))
        while time.monotonic() < until and os.waitpid(pid, os.WNOHANG) == (0, 0):
            num_looks += look(Path(output))
            time.sleep(0.01)
        try:
            os.kill(pid, signal.SIGKILL)
            num_killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
        except (ProcessLookupError, ChildProcessError):
            pass
        progress.append(look(Path(output)))
    _, status = os.waitpid(child(weights, folder, output), 0)
    print(json.dumps({"killed": num_killed, "looks": num_looks, "progress": progress, "status": status}))


if __name__ == "__main__":
    main()
