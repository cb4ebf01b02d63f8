"""Limits of cores and memory, read from trees of files as the kernel shows them inside and outside containers."""

import resource
from pathlib import Path

import pytest

from shards.common import machine
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import allow_open_files, available_memory, check_workers, cpu_quota, usable_cores

GB = 10**9
V2 = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "31 24 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "32 24 0:28 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
OTHERS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw"
NO_LIMIT_V1 = 9223372036854771712


def tree(root: Path, mounts: list[str], groups: str, files: dict[str, str]) -> Path:
    """A machine with 100 GB available, these mounts and groups of this process, and files below /sys/fs/cgroup."""
    content = {
        "proc/self/mountinfo": "\n".join([OTHERS, *mounts]) + "\n",
        "proc/self/cgroup": groups,
        "proc/meminfo": f"MemTotal: 500 kB\nMemAvailable:   {100 * GB // 1024} kB\nHugePages_Total: 0\n",
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def memory_v2(limit: object, used: int, file: int = 0, shmem: int = 0) -> dict[str, str]:
    stat = f"anon {used - file}\nfile {file}\nshmem {shmem}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def memory_v1(limit: int, used: int, cache: int = 0, shmem: int = 0) -> dict[str, str]:
    stat = f"cache 0\nshmem 0\ntotal_cache {cache}\ntotal_shmem {shmem}\n"
    return {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat}


def below(place: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{place}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "quota"),
    [
        pytest.param([], "", {}, None, id="no control groups"),
        pytest.param([V2.format(root="/")], "0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2 container"),
        pytest.param([V2.format(root="/")], "0::/\n", {"cpu.max": "max 100000\n"}, None, id="v2 without a limit"),
        pytest.param(
            [V2.format(root="/")],
            "0::/job/step/task\n",
            {
                "job/cpu.max": "200000 100000\n",
                "job/step/cpu.max": "800000 100000\n",
                "job/step/task/cpu.max": "max 1\n",
            },
            2.0,
            id="v2 nested, the smallest on the way up",
        ),
        pytest.param(
            [V2.format(root="/docker/abc")],
            "0::/docker/abc/inner\n",
            {"cpu.max": "400000 100000\n", "inner/cpu.max": "300000 100000\n"},
            3.0,
            id="v2, the mount shows a part of the tree",
        ),
        pytest.param(
            [V2.format(root="/")],
            "0::/../elsewhere\n",
            {"cpu.max": "250000 100000\n"},
            2.5,
            id="v2, a group out of sight",
        ),
        pytest.param(
            [V1_CPU.format(root="/"), V1_MEMORY.format(root="/")],
            "5:cpu,cpuacct:/slurm/job\n4:memory:/else\n",
            {
                "cpu,cpuacct/slurm/cpu.cfs_quota_us": "350000\n",
                "cpu,cpuacct/slurm/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000\n",
            },
            3.5,
            id="v1 nested",
        ),
        pytest.param(
            [V1_CPU.format(root="/docker/abc"), V2.format(root="/")],
            "5:cpu,cpuacct:/docker/abc\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="v1 container beside an empty v2",
        ),
        pytest.param([V2.format(root="/")], "0::/\n", {"cpu.max": "nonsense"}, None, id="not understood"),
    ],
)
def test_the_smallest_quota_around_the_process_holds(
    tmp_path: Path, mounts: list[str], groups: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, mounts, groups, files)) == quota


@pytest.mark.parametrize(
    ("quota", "affinity", "cores"), [("50000", 8, 1), ("150000", 8, 2), ("400000", 2, 2), ("max", 8, 8)]
)
def test_cores_are_bounded_by_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, affinity: int, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(affinity)))
    assert usable_cores(tree(tmp_path, [V2.format(root="/")], "0::/\n", {"cpu.max": f"{quota} 100000"})) == cores


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "room"),
    [
        pytest.param([], "", {}, 100 * GB, id="no control groups"),
        pytest.param([V2.format(root="/")], "0::/\n", memory_v2("max", GB), 100 * GB, id="v2 without a limit"),
        pytest.param(
            [V2.format(root="/")],
            "0::/\n",
            memory_v2(10 * GB, 6 * GB, 3 * GB, GB),
            6 * GB,
            id="the page cache gives way",
        ),
        pytest.param(
            [V2.format(root="/")],
            "0::/job/step\n",
            {**below("job", memory_v2(8 * GB, 5 * GB)), **below("job/step", memory_v2(20 * GB, GB))},
            3 * GB,
            id="v2 nested",
        ),
        pytest.param(
            [V1_MEMORY.format(root="/"), V1_CPU.format(root="/")],
            "4:memory:/job/step\n5:cpu,cpuacct:/\n",
            {
                **below("memory", memory_v1(NO_LIMIT_V1, 90 * GB)),
                **below("memory/job", memory_v1(8 * GB, 5 * GB, 2 * GB, GB)),
                **below("memory/job/step", memory_v1(NO_LIMIT_V1, GB)),
            },
            4 * GB,
            id="v1 nested",
        ),
        pytest.param([V2.format(root="/")], "0::/\n", memory_v2(GB, 2 * GB), 0, id="beyond the limit"),
    ],
)
def test_memory_is_what_the_machine_and_each_group_have_left(
    tmp_path: Path, mounts: list[str], groups: str, files: dict[str, str], room: int
) -> None:
    assert available_memory(tree(tmp_path, mounts, groups, files)) == pytest.approx(room, abs=1024)


def test_a_mount_point_with_blanks_is_read(tmp_path: Path) -> None:
    mount = V2.format(root="/").replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")
    assert cpu_quota(tree(tmp_path, [mount], "0::/\n", {"my groups/cpu.max": "100000 100000"})) == 1.0


def test_this_machine_is_read() -> None:
    assert usable_cores() >= 1
    assert available_memory() > 0


def test_the_limit_of_open_files_is_raised_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: limits.append(wanted))
    allow_open_files(10)
    assert len(limits) == 1
    allow_open_files(1282)
    assert 1538 < limits[-1][0] < 5000
    with pytest.raises(ShardfeedError, match=r"9000 files need \d+ open files, this system allows 5000"):
        allow_open_files(9000)


@pytest.mark.parametrize("soft", [40, 64])
def test_a_small_limit_of_open_files_is_enough_for_few_shards(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    limits = [(soft, 64)]
    monkeypatch.setattr(machine, "open_files", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: limits.append(wanted))
    allow_open_files(7)
    assert limits[-1] == (64, 64)
    with pytest.raises(ShardfeedError, match="60 files need 86 open files, this system allows 64"):
        allow_open_files(60)


@pytest.mark.parametrize("count", [0, 1025, 10**6])
def test_threads_that_no_machine_can_use_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"threads must be from 1 to 1,024, not {count:,}"):
        check_workers("threads", count)
