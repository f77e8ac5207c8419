"""Where the benchmark's steps run, and how their time and memory are measured there."""

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

    Of a CPU the process's time on it counts, of the kernel's work as well, and resident memory. Of a CUDA device the
    clock on the wall does, read when the device has done all that it was asked for, and the memory that torch gave out.
    """

    device: str = "cpu"
    bf16: bool = False

    @property
    def unit(self) -> str:
        """What `seconds` counts."""
        return "CPU-s" if self.device == "cpu" else "s"

    @property
    def start_method(self) -> str:
        """How a process of its own is started: a CUDA device cannot be used on both sides of a fork."""
        return "fork" if self.device == "cpu" else "spawn"

    @property
    def rows(self) -> int:
        """Rows of a product large enough to show its full rate."""
        return 1024 if self.device == "cpu" else 16384

    def seconds(self) -> float:
        """The time, from any beginning."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def kernel_seconds(self) -> float:
        """The part of the CPU's time that was the operating system's: pages of new memory, for the most part."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_stime

    def peak(self) -> float:
        """The most memory that was needed until now, in MiB."""
        if self.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS / MIB
        return torch.cuda.max_memory_allocated() / MIB

    def memory(self) -> float:
        """MiB that are there."""
        if self.device == "cpu":
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
        return torch.cuda.get_device_properties(0).total_memory / MIB

    def precision(self) -> AbstractContextManager[object]:
        """The context that a loss is computed in."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)
