"""The start of every script of goldens."""

import importlib.metadata
import sys
from pathlib import Path


def begin(pinned):
    """The script's argument, the folder to write into. Exits unless packages have their pinned versions."""
    for package, version in pinned.items():
        found = importlib.metadata.version(package)
        if found.split("+")[0] != version:
            sys.exit(
                f"error: {package} is {found}: install {version}, the version these goldens are made with"
            )
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {Path(sys.argv[0]).name} OUT_DIR")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    return out
