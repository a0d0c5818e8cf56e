"""What torch's devices have and lack, and what a trial fails of on them."""

from __future__ import annotations

import gc
import sys

import psutil
import torch


def available_devices() -> list[torch.device]:
    """Return the kinds of devices that are there: the CPU, and what accelerates."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    return devices


def widest_float(device: torch.device) -> torch.dtype:
    """Return the most precise floating point type of a device; Apple's GPUs have no double."""
    return torch.float32 if device.type == "mps" else torch.float64


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device, or None where nobody can tell."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def release_memory() -> None:
    """Give back what no tensor holds any more, to the other processes on the device.

    A failed step leaves cycles (an error's frames refer to it), which hold tensors until Python
    looks for them.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif sys.platform == "darwin" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def lacks_memory(error: BaseException) -> bool:
    """Whether a device or the host had no room for what was wanted; some say so in words alone."""
    words = ("backend out of memory", "DefaultCPUAllocator: can't allocate")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def use_tf32(enabled: bool) -> bool:
    """Let CUDA's matrix products round their factors to TF32; return whether they did before.

    Ten of a factor's 23 bits are left, so trainings end elsewhere than on a CPU, by less than
    another seed moves them; products are several times as fast from Ampere on.
    """
    before: bool = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled
    return before


def describe_failure(error: BaseException) -> str:
    """Return in a line what a trial failed of."""
    kind = "out of memory" if lacks_memory(error) else type(error).__name__
    return f"{kind}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or what it is."""
    return (str(error).strip() or repr(error)).splitlines()[0]
