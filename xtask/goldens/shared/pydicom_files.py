"""pydicom's images of every file of PyPI `pydicom` and `pydicom-data`, too many to store.

    cd xtask/goldens && python -m shared.pydicom_files OUT_DIR
    MM_PYDICOM_DATA=OUT_DIR cargo test --release -p mm-data --test dicom -- pydicom --nocapture
"""

import json
import sys
import warnings
from pathlib import Path

import data_store
import pydicom

from shared.dicom import count, write_case

# Of these names there are Python files, texts and archives.
OTHERS = {".py", ".pyc", ".json", ".txt", ".md", ".npy", ".zip", ".tar", ".bz2", ".gz", ".rst", ".dump"}


def frames_and_windows(path):
    """The first, middle and last frame with every window."""
    ds = pydicom.dcmread(path, force=True)
    frames = count(ds.get("NumberOfFrames"))
    centers = ds.get("WindowCenter")
    tables = len(ds.get("VOILUTSequence") or [])
    windows = tables + (0 if centers is None else ds["WindowCenter"].VM)
    return [(f, w) for f in sorted({0, frames // 2, frames - 1}) for w in range(max(windows, 1))]


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    cases = []
    for root in (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data"):
        for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in OTHERS):
            try:
                for frame, window in frames_and_windows(path):
                    cases.append(write_case(path, out, f"{len(cases)}.png", frame, window))
            except Exception as error:  # whatever pydicom raises is its refusal of the file
                cases.append({"file": str(path), "error": f"{type(error).__name__}: {error}".splitlines()[0]})
    (out / "cases.json").write_text(json.dumps(cases, indent=1))
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} refused by pydicom")


if __name__ == "__main__":
    main()
