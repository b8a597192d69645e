"""The memory of a process, for the benchmarks of the peers."""

from pathlib import Path


def peak_mb(process="self"):
    """Peak memory of the process with this id, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def resident_mb():
    """Memory that this process holds now, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
