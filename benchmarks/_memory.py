"""How much memory a process has had at most."""

from __future__ import annotations

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident() -> float:
    """Highest resident set of this process so far, in bytes.

    Linux counts that of the process which started this one into ``ru_maxrss``; its status file does not.
    """
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * float(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
