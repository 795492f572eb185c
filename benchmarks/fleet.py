"""A billion rows on a thousand GPUs or ten thousand cores: a simulation of shards, and what binds them.

    python benchmarks/fleet.py --out fleet.json
    python benchmarks/fleet.py --rows 1e8 --seeds 3 --out small.json

Nothing is drawn. Workers take shards from a queue; a driver hands them out one by one. A shard is drawn at
the rate that was measured (``results/``), written to the disk of its node three times over (parts, their
reading, the store), and uploaded; uploads share what their nodes' network cards, a connection and the object
storage let through. Workers fail at random and are started again, their shard goes back to the queue;
some are slow. At the end the driver opens every shard, one after the other, and writes the manifest.

Beside the simulated time stand the bounds: how long each resource alone would take if nothing else were in
the way. The largest is what binds. Everything that is not measured here is an assumption, in `Site`.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import heapq
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import results
from ldmlr.files import write_text

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, DIM, HIDDEN = 10**9, 512, 512
# Label, id and source of a row.
BESIDE = 8 + 8 + 1


@dataclasses.dataclass(frozen=True)
class Site:
    """What the machines are taken to be.

    Attributes
    ----------
    start, restart
        Seconds until a worker has its model, at first and after a failure.
    disk_passes
        How often the bytes of a shard cross the disk of its node.
    stream
        Bytes/s of one upload at most.
    dispatch
        Seconds that the driver needs to hand out a shard.
    opening
        Seconds that the driver needs to open a shard for the manifest.
    """

    start: float = 10.0
    restart: float = 20.0
    disk_passes: int = 3
    stream: float = 0.5e9
    dispatch: float = 2e-3
    opening: float = 30e-3


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Workers, and the nodes they are on.

    Attributes
    ----------
    name
        In words.
    workers, per_node
        In all, and on a node.
    rate
        Rows/s that a worker draws.
    disk, network
        Bytes/s of a node's disk and of its network card.
    """

    name: str
    workers: int
    per_node: int
    rate: float
    disk: float
    network: float

    @property
    def nodes(self) -> float:
        """Nodes."""
        return self.workers / self.per_node


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that is simulated.

    Attributes
    ----------
    setting
        In words, for the table.
    fleet
        Who works.
    shard_rows
        Rows of a shard.
    storage
        Bytes/s that the object storage takes in from all.
    width
        Bytes of a number.
    hours
        Mean time between failures of a worker; infinity: none fails.
    slow, factor
        Share of the workers that are slow, and how many times.
    """

    setting: str
    fleet: Fleet
    shard_rows: int
    storage: float = 100e9
    width: int = 4
    hours: float = math.inf
    slow: float = 0.0
    factor: float = 1.0


@dataclasses.dataclass
class Attempt:
    """A shard at a worker."""

    shard: int
    worker: int
    began: float
    uploading: bool = False


class Uploads:
    """Uploads that share a bandwidth evenly, each at most as fast as a worker can.

    As all go at the same speed, one number, the bytes that each has sent since the beginning, tells when
    which ends: nothing is updated per upload.
    """

    def __init__(self, each: float, together: float) -> None:
        self.each, self.together = each, together
        self.sent, self.time, self.count = 0.0, 0.0, 0
        self.ends: list[tuple[float, int]] = []  # (bytes sent by all at its end, attempt)
        self.gone: set[int] = set()

    def _speed(self) -> float:
        return min(self.each, self.together / self.count) if self.count else 0.0

    def advance(self, now: float) -> None:
        """Let time pass."""
        self.sent += (now - self.time) * self._speed()
        self.time = now

    def add(self, attempt: int, size: float) -> None:
        """Begin an upload now."""
        heapq.heappush(self.ends, (self.sent + size, attempt))
        self.count += 1

    def drop(self, attempt: int) -> None:
        """End one that failed."""
        self.gone.add(attempt)
        self.count -= 1

    def next(self) -> tuple[float, int]:
        """Return when which upload ends, if nothing changes; (infinity, -1) without any."""
        while self.ends and self.ends[0][1] in self.gone:
            self.gone.discard(heapq.heappop(self.ends)[1])
        if not self.ends:
            return math.inf, -1
        end, attempt = self.ends[0]
        return self.time + max(end - self.sent, 0.0) / self._speed(), attempt

    def take(self) -> None:
        """End the upload that `next` names."""
        heapq.heappop(self.ends)
        self.count -= 1


class Simulation:
    """Workers, queue and driver of one case; `run` returns its figures."""

    def __init__(self, case: Case, rows: int, site: Site, seed: int) -> None:
        self.case, self.site, self.rng = case, site, np.random.default_rng(seed)
        count = -(-rows // case.shard_rows)
        self.sizes = np.diff(np.arange(count + 1) * rows // count)
        self.queue = collections.deque(range(count))
        fleet = case.fleet
        slow = self.rng.random(fleet.workers) < case.slow
        self.slowness = np.where(slow, case.factor, 1.0)
        share = fleet.network / fleet.per_node
        self.uploads = Uploads(min(share, site.stream), min(case.storage, fleet.network * fleet.nodes))
        self.events: list[tuple[float, int, str, int]] = []
        self.number = 0
        self.attempts: dict[int, Attempt] = {}
        self.idle: list[int] = []
        self.driver_free = self.lost = 0.0
        self.done = np.zeros(count, np.int64)
        self.failures = 0

    def run(self) -> dict[str, float]:
        """Return seconds until shards and manifest are there, repeated shards and the share of lost work."""
        starts = self.site.start * (1 + 0.3 * self.rng.random(self.case.fleet.workers))
        for worker, when in enumerate(starts):
            self._at(float(when), "ready", worker)
        now = 0.0
        while not self.done.all():
            upload, attempt = self.uploads.next()
            if self.events and self.events[0][0] <= upload:
                now, _, what, who = heapq.heappop(self.events)
                self.uploads.advance(now)
                getattr(self, f"_{what}")(now, who)
            else:
                now = upload
                self.uploads.advance(now)
                self.uploads.take()
                self._uploaded(now, attempt)
        manifest = len(self.done) * self.site.opening
        busy = now * self.case.fleet.workers
        return {
            "shards_there": now, "whole": now + manifest, "repeated": float(self.failures),
            "lost": self.lost / busy,
        }  # fmt: skip

    def _at(self, when: float, what: str, who: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what, who))

    def _ready(self, now: float, worker: int) -> None:
        """Hand a shard to a worker that waits; the driver hands out one at a time."""
        if not self.queue:
            self.idle.append(worker)
            return
        shard = self.queue.popleft()
        self.driver_free = max(now, self.driver_free) + self.site.dispatch
        began = self.driver_free
        self.number += 1
        attempt = self.number
        self.attempts[attempt] = Attempt(shard, worker, began)
        rows, fleet = int(self.sizes[shard]), self.case.fleet
        drawing = rows / fleet.rate
        writing = self.site.disk_passes * self._bytes(rows) / (fleet.disk / fleet.per_node)
        self._at(began + (drawing + writing) * float(self.slowness[worker]), "drawn", attempt)
        if math.isfinite(self.case.hours):
            self._at(began + float(self.rng.exponential(3600 * self.case.hours)), "failed", attempt)

    def _drawn(self, now: float, attempt: int) -> None:
        found = self.attempts.get(attempt)
        if found is not None:
            found.uploading = True
            self.uploads.add(attempt, self._bytes(int(self.sizes[found.shard])))

    def _uploaded(self, now: float, attempt: int) -> None:
        found = self.attempts.pop(attempt)
        self.done[found.shard] += 1
        self._ready(now, found.worker)

    def _failed(self, now: float, attempt: int) -> None:
        """Lose a worker in the middle of a shard; one that ended before is none of it."""
        found = self.attempts.pop(attempt, None)
        if found is None:
            return
        if found.uploading:
            self.uploads.drop(attempt)
        self.failures += 1
        self.lost += now - found.began
        self.queue.append(found.shard)
        self._at(now + self.site.restart, "ready", found.worker)
        if self.idle:
            self._ready(now, self.idle.pop())

    def _bytes(self, rows: int) -> float:
        return float(rows * (DIM * self.case.width + BESIDE))


def bounds(case: Case, rows: int, site: Site) -> dict[str, float]:
    """Return how long each resource alone would take, seconds."""
    size, fleet = rows * (DIM * case.width + BESIDE), case.fleet
    shards = -(-rows // case.shard_rows)
    rounds = math.ceil(shards / fleet.workers) * case.shard_rows
    return {
        "drawing": rows / (fleet.workers * fleet.rate),
        "drawing in whole shards": rounds / fleet.rate,
        "disks": site.disk_passes * size / (fleet.nodes * fleet.disk),
        "network cards": size / (fleet.nodes * fleet.network),
        "object storage": size / case.storage,
        "driver": shards * site.dispatch,
        "manifest": shards * site.opening,
    }


def measured(path: str, **fields: Any) -> float:
    """Return the highest rate of drawing among the rows of a result that have some fields, rows/s."""
    rows = json.loads((RESULTS / path).read_text(encoding="utf-8"))["rows"]
    fields |= {"dim": DIM, "hidden": HIDDEN}
    return max(row["rows_per_s"] for row in rows if fields.items() <= row.items())


def cases() -> list[Case]:
    """Return what is simulated: each row changes one thing of the one above, or names another fleet."""
    gpus = Fleet(
        "1,000 GPUs", 1000, 8, measured("gpu/h200-sample.json", dtype="bfloat16"), disk=10e9, network=50e9
    )
    cores = Fleet(
        "10,000 cores", 10_000, 50, measured("cpu/sampler-zen5.json", dtype="bfloat16", threads=1), disk=2e9,
        network=3e9,
    )  # fmt: skip
    found = []
    for fleet, size in ((gpus, 2**18), (cores, 2**16)):
        base = Case(f"{fleet.name}, {size:,} rows a shard", fleet, size)
        large = dataclasses.replace(base, shard_rows=4 * size)
        fast = dataclasses.replace(large, storage=1e12)
        found += [
            base,
            dataclasses.replace(large, setting=f"{fleet.name}, {4 * size:,} rows a shard"),
            dataclasses.replace(fast, setting=f"{fleet.name}, storage of 1 TB/s"),
            dataclasses.replace(fast, width=2, setting=f"{fleet.name}, and float16"),
            dataclasses.replace(
                fast, width=2, slow=0.02, factor=4.0, setting=f"{fleet.name}, and 2 % of them 4 times slower"
            ),
            dataclasses.replace(
                fast, width=2, slow=0.02, factor=4.0, hours=1.0,
                setting=f"{fleet.name}, and each fails once an hour",
            ),
        ]  # fmt: skip
    return found


def simulated(case: Case, rows: int, site: Site, seeds: int) -> list[dict[str, Any]]:
    """Return the rows of the result for one case: medians over seeds, and bounds."""
    runs = [Simulation(case, rows, site, seed).run() for seed in range(seeds)]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    limits = bounds(case, rows, site)
    seconds = {
        "until the manifest is there": median["whole"],
        "until all shards are there": median["shards_there"],
    }
    found: list[dict[str, Any]] = [
        {"what": what, "setting": case.setting, "seconds": value}
        for what, value in {**seconds, **limits}.items()
    ]
    found.append({"what": "repeated shards", "setting": case.setting, "operations": median["repeated"]})
    found.append({"what": "lost work", "setting": case.setting, "fraction": median["lost"]})
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Simulate all cases and save their figures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=float, default=ROWS, help="rows to draw")
    parser.add_argument("--seeds", type=int, default=3, help="simulations of a case; the median is shown")
    parser.add_argument("--out", type=Path, default=Path("fleet.json"), help="result document")
    options = parser.parse_args(args)
    rows, site = int(options.rows), Site()
    found = []
    for case in cases():
        lines = simulated(case, rows, site, options.seeds)
        found += lines
        bound = max(bounds(case, rows, site).items(), key=lambda item: item[1])
        print(f"{case.setting}: {lines[0]['seconds']:,.1f} s; bound by {bound[0]}, {bound[1]:,.1f} s")
    settings = {
        "rows": rows,
        "dim": DIM,
        "hidden": HIDDEN,
        "seeds": options.seeds,
        "site": dataclasses.asdict(site),
    }
    write_text(options.out, json.dumps(results.document("fleet", settings, rows=found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
