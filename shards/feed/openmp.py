"""PyTorch's idle CPU threads leave the cores to those that read and decode.

The wheels of PyTorch bring libgomp. A thread of its pool that has nothing to do spins for milliseconds before it
sleeps, on a core that a thread of the loader needs. OMP_WAIT_POLICY=PASSIVE ends that, but libgomp reads it when it is
loaded, which is before anybody thinks of it. At run time there is one way: libgomp hardly spins while it manages more
threads than there are cores, and the loader's threads, of which it does not know, do make more of them. So a thread of
the loader has libgomp start as many as are missing to that number, one as a rule, which sleep until it ends.

See `gomp_throttled_spin_count_var` in libgomp's env.c and wait.h, and GOMP_SPINCOUNT in its manual.
"""

import ctypes
import os

import torch

# With any of them the user has decided how libgomp waits.
DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def let_idle_threads_sleep() -> None:
    """Makes libgomp's idle threads sleep at once, for as long as the calling thread lives.

    Does nothing where the user has decided, where PyTorch uses few of the cores or another OpenMP library than libgomp.
    """
    threads = torch.get_num_threads()
    if threads == 1 or any(name in os.environ for name in DECIDED):
        return
    try:
        openmp = ctypes.CDLL("libgomp.so.1", os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return
    # Together with PyTorch's own, `missing` threads beside this one are one more than there are cores.
    missing = max(1, openmp.omp_get_num_procs() + 1 - threads)
    if missing > threads + 1:
        return  # most cores are free, and a container may refuse so many threads, which ends the process
    # What compilers call for a parallel region. Each thread runs a function of the C library that does nothing.
    nothing = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p)
    openmp.GOMP_parallel(nothing, None, ctypes.c_uint(missing + 1), ctypes.c_uint(0))
