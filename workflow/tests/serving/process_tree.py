"""A fake server tree for the watchdog tests: no model, three processes.

    python process_tree.py FOLDER LEVEL obedient|stubborn

starts at LEVEL 0 a child in a session of its own, which starts a grandchild. Each writes its
process id into FOLDER with the name of a segment of shared memory that it holds, as vLLM's
processes do; a stubborn one ignores SIGTERM.
"""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

LEVELS = ("root", "child", "grandchild")


def main() -> None:
    folder, level, stubborn = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "stubborn"
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if level + 1 < len(LEVELS):
        arguments = [str(folder), str(level + 1), sys.argv[3]]
        subprocess.Popen([sys.executable, __file__, *arguments], start_new_session=True)
    segment = shared_memory.SharedMemory(create=True, size=4096)
    report = folder / f".{LEVELS[level]}"
    report.write_text(f"{os.getpid()} {segment.name}")
    report.rename(folder / LEVELS[level])
    time.sleep(120)


if __name__ == "__main__":
    main()
