"""Check the locked packages for known vulnerabilities; `.ci/run` does it.

The source is OSV, the database of open-source vulnerabilities. Where it cannot be reached, nothing
is checked, and the output says so.
"""

import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = "https://api.osv.dev/v1/query"
FILES = ("build", "torch", "server", "dev")
TIMEOUT_SECONDS = 10


def main() -> None:
    """Audit every file of locked requirements; the exit status is 1 if a package is vulnerable."""
    if not is_reachable():
        print("not audited: no advisory source can be reached from here")
        return
    files = [option for name in FILES for option in ("-r", str(HERE / f"{name}.txt"))]
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--strict", "-s", "osv", *files]
    sys.exit(subprocess.run(command, check=False).returncode)


def is_reachable() -> bool:
    """Return whether the source answers a question about a package."""
    question = b'{"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "24.0"}'
    try:
        with urllib.request.urlopen(SOURCE, question, TIMEOUT_SECONDS) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
