"""python -m benchmarks plan --images 1.4e9 --nodes 64 --gpus-per-node 8 --images-per-s-per-gpu 2500 --link 100Gb

What this design would cost at a scale that nobody has here: the costs that can be measured are measured on this
machine (order, index, manifest), the traffic of the caches is simulated with the code that makes the order, and both
are scaled to the cluster described. Every line says what it rests on and whether it holds; after it come the limits,
and what would change there. A plan is arithmetic: none of it was run on such a cluster. The last line is JSON.
"""

import dataclasses
import json
import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.cache import parse_size
from shards.errors import UsageError
from shards.hashing import integers, permutation
from shards.index import DTYPES, Index
from shards.manifest import ShardInfo
from shards.order import SHARDS, WINDOW, epoch_order

# Bytes of memory a row: the index's columns, and two epochs of sample ids (the one being read and the next).
INDEX_ROW = sum(np.dtype(dtype).itemsize for dtype in DTYPES.values())
ORDER_ROW = 2 * np.dtype(np.int64).itemsize
# Shards of the simulated cache: enough for the hit rate not to depend on their number.
SIMULATED = 4000
# Rows of the tables that are measured: small enough for seconds, large enough for the sort to leave the caches.
ROWS = 4_000_000
# Of what there is, the part that one thing may take before a line says that it does not hold.
SHARE = 0.5


@dataclass(frozen=True)
class Options:
    """Scales what was measured to a cluster, and says where the design stops working."""

    images: float = 1.4e9
    """Images of the data set."""
    nodes: int = 64
    """Machines."""
    gpus_per_node: int = 8
    """GPUs, each with a rank, of a machine."""
    images_per_s_per_gpu: float = 2500
    """Images that one GPU trains on in a second, if they are there."""
    link: str = "100Gb"
    """What a machine's network brings, in bits a second."""
    cores_per_node: int = 128
    """Cores of a machine."""
    images_per_s_per_core: float = 2000
    """Images that one core reads, decodes, crops and normalises in a second (the README's table, by its two cores)."""
    memory: str = "1TB"
    """Memory of a machine."""
    cache: str = "4TB"
    """--cache-size of a machine."""
    image_size: str = "31k"
    """Bytes of an image: 31 kB at shorter side 256 and quality 90."""
    shard_size: int = 10_000
    """Images of a shard."""
    rows: int = ROWS
    """Rows of the order and the index that are measured here."""

    def __post_init__(self) -> None:
        counts = ("images", "nodes", "gpus_per_node", "cores_per_node", "shard_size")
        for name in (*counts, "images_per_s_per_gpu", "images_per_s_per_core"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(self, name)}")
        if self.rows < 1000:
            raise UsageError(f"--rows must be 1,000 or more, not {self.rows}")
        _ = (self.bytes_per_s, parse_size(self.memory), parse_size(self.cache), parse_size(self.image_size))

    @property
    def bytes_per_s(self) -> float:
        """What the link of a machine brings, in bytes a second."""
        return parse_size(self.link.removesuffix("/s").removesuffix("it").removesuffix("b")) / 8


@dataclass(frozen=True)
class Costs:
    """Measured here, by processor time. `order` and `index`: seconds for `rows` rows; `manifest`: bytes a shard."""

    rows: int
    order: float
    index: float
    index_file: float
    """Bytes a row of index.parquet."""
    manifest: float

    def order_seconds(self, rows: float) -> float:
        """The order of an epoch is a sort: n log n."""
        return self.order * rows / self.rows * math.log2(rows) / math.log2(self.rows)

    def index_seconds(self, rows: float) -> float:
        """Reading the index is linear."""
        return self.index * rows / self.rows


@dataclass(frozen=True)
class Line:
    """One thing that the scale asks for: how much, of how much there is, in `unit`."""

    what: str
    needed: float
    there: float
    unit: str
    basis: str
    remedy: str

    @property
    def holds(self) -> bool:
        return self.needed <= self.there


def run(options: Options) -> None:
    """Measures, simulates, and prints the plan."""
    costs = measure(options.rows)
    lines = plan(options, costs, hit_rate(options))
    print(_table(options, costs, lines))
    summary = {
        "options": dataclasses.asdict(options),
        "costs": dataclasses.asdict(costs),
        "lines": [{**dataclasses.asdict(line), "holds": line.holds} for line in lines],
    }
    print(json.dumps(summary))


def measure(rows: int) -> Costs:
    """Times the order of an epoch and the reading of an index of so many rows, as this machine does them."""
    shard = (np.arange(rows) // 1000).astype(np.int32)
    order = _seconds(lambda: epoch_order(shard, "blocks", 0, 0))
    size = 20_000 + integers(np.arange(rows), 20_000, 0, 1)
    others = [integers(np.arange(rows), bound, 0, 2) for bound in (1000, 400, 400, 2**31 - 1)]
    table = np.stack([shard, np.cumsum(size) % (31 * 10**6), size, *others], axis=1)
    columns = {name: table[:, i].astype(dtype) for i, (name, dtype) in enumerate(DTYPES.items())}
    keys = np.char.zfill(np.arange(rows).astype(str), 8).astype(object)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "index.parquet"
        Index(**columns, key=keys).write(path)
        index = _seconds(lambda: Index.read(path))
        index_file = path.stat().st_size / rows
    info = json.dumps(dataclasses.asdict(ShardInfo("train-000000.tar", 10**8, 10**4, "0" * 64)), indent=1)
    return Costs(rows, order, index, index_file, len(info) + 4 * (info.count("\n") + 1))


def hit_rate(options: Options) -> float:
    """The part of the shards that a machine finds in its cache in a later epoch, by simulation.

    Blocks of shards in a new random order each epoch, the least recently used removed first; each machine needs all
    shards (see `part_needed`).
    """
    total = options.images * parse_size(options.image_size)
    return simulated_hit_rate(min(1.0, parse_size(options.cache) / total))


def simulated_hit_rate(share: float, shards: int = SIMULATED, epochs: int = 4) -> float:
    """Hits of a least-recently-used cache that holds the `share` of the shards, from the second epoch on."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for epoch in range(epochs):
        for number in permutation(shards, 0, epoch, SHARDS).tolist():
            hits += epoch > 0 and number in cache
            cache[number] = None
            cache.move_to_end(number)
            if len(cache) > share * shards:
                cache.popitem(last=False)
    return hits / (shards * (epochs - 1))


def part_needed(nodes: int, shard_size: int) -> float:
    """The part of a block's shards of which a machine needs at least one sample, where ranks take turns."""
    return 1 - (1 - 1 / nodes) ** shard_size


def plan(options: Options, costs: Costs, hits: float) -> list[Line]:
    """What the scale asks for, and what there is. A pure function."""
    rate = options.gpus_per_node * options.images_per_s_per_gpu
    epoch = options.images / (options.nodes * rate)
    image, memory = parse_size(options.image_size), parse_size(options.memory)
    shards = math.ceil(options.images / options.shard_size)
    fetched = part_needed(options.nodes, options.shard_size) * options.nodes * (1 - hits) * image * rate
    own = "an order of its own for each node: the shards of an epoch are dealt to the nodes, and batches mixed inside"
    tree = "a hierarchical index: rows a shard in the shard's own table, read when it is fetched; sums in the manifest"
    window = WINDOW * options.shard_size * image
    return [
        Line(
            "cores that decode, where the CPU does it",
            rate / options.images_per_s_per_core,
            options.cores_per_node,
            "cores a node",
            f"{options.images_per_s_per_core:,.0f} images/s and core",
            "decode on the GPU, or store raw pixels",
        ),
        Line(
            "network for data, blocks over all nodes",
            fetched / 1e9,
            SHARE * options.bytes_per_s / 1e9,
            "GB/s a node",
            f"every node needs {part_needed(options.nodes, options.shard_size):.0%} of the shards, and finds "
            f"{hits:.0%} of them in its cache (simulated)",
            own,
        ),
        Line(
            "network for data, an order for each node",
            image * rate / 1e9,
            SHARE * options.bytes_per_s / 1e9,
            "GB/s a node",
            "each image once over all nodes; without any cache",
            "smaller images, or a faster link",
        ),
        Line(
            "cache for this block and the next",
            2 * window / 1e9,
            parse_size(options.cache) / 1e9,
            "GB a node",
            f"2 x {WINDOW} shards of {options.shard_size:,} images",
            "smaller shards",
        ),
        Line(
            "memory for index and order, in every rank",
            options.gpus_per_node * (INDEX_ROW + ORDER_ROW) * options.images / 1e9,
            SHARE * memory / 1e9,
            "GB a node",
            f"{INDEX_ROW} + {ORDER_ROW} bytes a row and rank",
            tree,
        ),
        Line(
            "memory while an order is sorted, in every rank",
            options.gpus_per_node * 4 * 8 * options.images / 1e9,
            SHARE * memory / 1e9,
            "GB a node",
            "4 columns of 8 bytes a row: keys, sorted ids, and the sort's own",
            own,
        ),
        Line(
            "order of the next epoch, while this one runs",
            costs.order_seconds(options.images),
            epoch,
            "s",
            f"{costs.order:.2f} s of a core for {costs.rows:,} rows, measured; n log n",
            own,
        ),
        Line(
            "resuming: index read, order computed, before the first batch",
            costs.order_seconds(options.images) + costs.index_seconds(options.images),
            60,
            "s",
            f"index {costs.index:.2f} s of a core for {costs.rows:,} rows, measured; linear",
            tree,
        ),
        Line(
            "index.parquet, fetched by each node once",
            costs.index_file * options.images / options.bytes_per_s,
            60,
            "s",
            f"{costs.index_file:.1f} bytes a row, measured",
            tree,
        ),
        Line(
            "manifest.json",
            costs.manifest * shards / 1e6,
            100,
            "MB",
            f"{shards:,} shards of {costs.manifest:.0f} bytes, measured",
            f"larger shards than {options.shard_size:,} images, or a manifest a split",
        ),
        Line(
            "requests to the store, from all nodes",
            options.nodes * fetched / (options.shard_size * image),
            5500,
            "a second",
            "a shard a request; S3 promises 5,500 reads a second for each part of its key space",
            "larger shards",
        ),
    ]


def _seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _table(options: Options, costs: Costs, lines: list[Line]) -> str:
    rate = options.nodes * options.gpus_per_node * options.images_per_s_per_gpu
    epoch = options.images / rate
    size = options.images * parse_size(options.image_size)
    head = (
        f"{options.images:,.0f} images ({size / 1e12:,.1f} TB) on {options.nodes} nodes of {options.gpus_per_node} "
        f"GPUs at {options.images_per_s_per_gpu:,.0f} images/s: {rate:,.0f} images/s, an epoch in "
        f"{epoch / 60:,.1f} minutes"
    )
    rows = []
    for line in lines:
        mark = "holds" if line.holds else "FAILS"
        rows.append(f"{mark}  {line.what:<62} {line.needed:>12,.2f} of {line.there:>10,.2f} {line.unit}")
        rows.append(f"       from: {line.basis}")
    broken = [line for line in lines if not line.holds]
    changes = "\n".join(f"- {remedy}" for remedy in dict.fromkeys(line.remedy for line in broken))
    ranks = options.gpus_per_node
    most = SHARE * parse_size(options.memory) / (ranks * max(INDEX_ROW + ORDER_ROW, 32))
    limits = f"memory alone allows {most:,.0f} images with {ranks} ranks on a node of {options.memory}"
    verdict = f"what changes:\n{changes}" if broken else "nothing has to change"
    return "\n".join([head, "", *rows, "", limits, verdict, ""])
