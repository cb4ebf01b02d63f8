"""What the nvJPEG library here can do: DALI decodes with it on a GPU, and falls back in silence where it cannot."""

import ctypes
import functools
import importlib.util
from pathlib import Path

import torch

# From this version on, a region that is decoded alone has the right chroma at its edges too; nvImageCodec 0.9 hands
# regions to an older one only without fancy upsampling, and otherwise decodes them on the CPU.
REGIONS_WITH_FANCY_UPSAMPLING = (13, 2)
NAMES = ("libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so")
# nvjpeg.h: libraryPropertyType, nvjpegStatus_t.
_MAJOR, _MINOR = 0, 1
_SUCCESS = 0


@functools.cache
def library() -> ctypes.CDLL | None:
    """nvJPEG as nvImageCodec finds it: in NVIDIA's wheels, then wherever the system looks. None where it is not."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else [Path(root) for root in spec.submodule_search_locations or ()]
    wheels = [str(root / part / "lib" / name) for root in roots for part in ("cu13", "nvjpeg") for name in NAMES]
    for name in (*wheels, *NAMES):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def version() -> tuple[int, int] | None:
    """Major and minor version of nvJPEG; None where it is not installed or does not say."""
    nvjpeg, found = library(), []
    if nvjpeg is None:
        return None
    for part in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        if nvjpeg.nvjpegGetProperty(part, ctypes.byref(value)) != _SUCCESS:
            return None
        found.append(value.value)
    return found[0], found[1]


def engines(device_id: int) -> int | None:
    """The JPEG engines that nvJPEG finds on a GPU; None where it cannot be asked.

    A container without the driver's `video` capability has none, whatever GPU it is.
    """
    nvjpeg, handle = library(), ctypes.c_void_p()
    if nvjpeg is None or not hasattr(nvjpeg, "nvjpegGetHardwareDecoderInfo"):
        return None
    with torch.cuda.device(device_id):
        if nvjpeg.nvjpegCreateSimple(ctypes.byref(handle)) != _SUCCESS:
            return None
        number, cores = ctypes.c_uint(), ctypes.c_uint()
        said = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(number), ctypes.byref(cores))
        nvjpeg.nvjpegDestroy(handle)
    return number.value if said == _SUCCESS else None
