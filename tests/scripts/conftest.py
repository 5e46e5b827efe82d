from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def run(tmp_path) -> Callable[..., str]:
    """Run a script in the folder of the test; what it printed."""

    def run_script(*arguments: str, **environment: str) -> str:
        command = [sys.executable, "-W", "error::FutureWarning", *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run_script
