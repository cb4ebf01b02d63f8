"""PyTorch's idle threads while a loader feeds: counted in switches, since times say little on a busy machine."""

import os
import subprocess
import sys

from shards.dataset import Split
from tests import ROOT

PAUSES = 100
# Prints how often the threads that PyTorch made gave up their core by themselves, in loops with short pauses.
PROGRAM = f"""
import os, sys, time, torch
from shards import Loader, open_dataset

def switches(thread):
    with open(f"/proc/self/task/{{thread}}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))

torch.set_num_threads(2)
many = torch.ones(1 << 20)
many.mean()
pool = set(os.listdir("/proc/self/task")) - {{str(os.getpid())}}
with Loader(open_dataset(sys.argv[1])["train"], batch_size=4, train=True, size=32, threads=1) as loader:
    next(iter(loader))
    before = sum(map(switches, pool))
    for _ in range({PAUSES}):
        many.mean()
        time.sleep(0.0005)
    print(sum(map(switches, pool)) - before)
"""


def test_idle_threads_of_torch_sleep_while_a_loader_feeds(small_split: Split) -> None:
    undecided = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(small_split.root)],
        env={**undecided, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(ran.stdout) >= PAUSES / 2
