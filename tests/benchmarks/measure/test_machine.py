"""Facts of the machine; processor seconds are those of this process and of what it started."""

import platform
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.measure.machine import hardware, processor, processor_seconds
from shards.decode import nvjpeg

BUSY = (
    "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('done', flush=True)\n"
)


def test_work_of_this_process_counts_and_sleep_does_not() -> None:
    before, own = processor_seconds(), time.process_time()
    while time.process_time() - own < 0.1:
        pass
    time.sleep(0.1)
    assert abs(processor_seconds() - before - (time.process_time() - own)) < 0.03


def test_work_of_a_child_counts_while_it_lives_and_after_its_end() -> None:
    before = processor_seconds()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processor_seconds() - before >= 0.19
    assert processor_seconds() - before >= 0.19


def test_a_gpu_s_decoder_is_part_of_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "jpeg_engines" not in hardware()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(nvjpeg, "version", lambda: (13, 3))
    monkeypatch.setattr(nvjpeg, "engines", lambda _: 7)
    found = hardware()
    assert (found["gpu"], found["nvjpeg"], found["jpeg_engines"]) == ("a GPU", "13.3", 7)


@pytest.mark.parametrize(
    ("model", "flags", "told"),
    [
        ("1", "fpu avx avx2 fma", "AMD EPYC (family 25, model 1, AVX2)"),
        ("17", "fpu avx avx2 avx512f avx512bw", "AMD EPYC (family 25, model 17, AVX-512)"),
    ],
)
def test_processors_of_one_name_are_told_apart(model: str, flags: str, told: str) -> None:
    core = f"processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n"
    assert processor(f"{core}flags\t\t: {flags}\n\n{core.replace(model, '9')}flags\t\t: fpu\n") == told


def test_a_processor_without_a_name_is_called_by_its_architecture() -> None:
    assert processor("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n") in (
        platform.processor(),
        platform.machine(),
    )
    assert processor() == hardware()["cpu"]
