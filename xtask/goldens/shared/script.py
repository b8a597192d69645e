"""How every script of goldens begins."""

import importlib.metadata
import sys
from pathlib import Path


def begin(pinned):
    """The folder to write into, the script's one argument. Ends the script where a package is not of the version pinned for it."""
    for package, version in pinned.items():
        found = importlib.metadata.version(package)
        if found.split("+")[0] != version:
            sys.exit(f"error: {package} is {found}: install {version}, the version these goldens are made with")
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {Path(sys.argv[0]).name} OUT_DIR")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    return out
