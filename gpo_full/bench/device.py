"""The device that the benchmark runs on, and how time and memory are measured there."""

__all__ = ["Place"]

import os
import platform
import resource
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

# The kernel counts resident memory in KiB, macOS in bytes.
MIB, MAXRSS = 2**20, 1 if platform.system() == "Darwin" else 2**10


@dataclass(frozen=True)
class Place:
    """A device and whether products are in bfloat16 (autocast; weights stay float32).

    On a CPU, time is the process's CPU time, the operating system's part included, and memory is resident memory. On a
    CUDA device, time is wall-clock time after synchronisation, and memory is what torch allocated.
    """

    device: str = "cpu"
    bf16: bool = False

    @property
    def unit(self) -> str:
        """The unit of `seconds`."""
        return "CPU-s" if self.device == "cpu" else "s"

    @property
    def start_method(self) -> str:
        """The start method of multiprocessing: a CUDA device cannot be used on both sides of a fork."""
        return "fork" if self.device == "cpu" else "spawn"

    @property
    def rows(self) -> int:
        """Rows of a matrix product that is large enough to reach the device's full rate."""
        return 1024 if self.device == "cpu" else 16384

    def seconds(self) -> float:
        """Seconds since an arbitrary origin."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def kernel_seconds(self) -> float:
        """The operating system's part of the CPU time: mostly new pages of memory."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_stime

    def peak(self) -> float:
        """The peak memory until now, in MiB."""
        if self.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS / MIB
        return torch.cuda.max_memory_allocated() / MIB

    def memory(self) -> float:
        """The total memory of the device, in MiB."""
        if self.device == "cpu":
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
        return torch.cuda.get_device_properties(0).total_memory / MIB

    def precision(self) -> AbstractContextManager[object]:
        """The autocast context in which a loss is computed."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)
