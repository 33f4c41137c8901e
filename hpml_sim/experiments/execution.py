"""Where rows are computed: in this process, in several of this machine (joblib), or on a Dask cluster.

Networks are trained first, then every point with every seed is a task of its own. A row is the same wherever it is
computed: workers compute with one thread, one task at a time, from nothing but the task.

A Slurm cluster is a Dask cluster whose workers are jobs (extra `cluster`):

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, processes=1, memory="4GB", walltime="04:00:00")   # one worker a job
    cluster.scale(jobs=20)
    hs.sweep("mlp", "digits", ["pcm-hermes"], {"adc_bits": [4, 6]}, dask=cluster.scheduler_address, out="runs/s")

The workers need this package in the same version, and code and data of your own by a name that they can import or read.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, needs
from hpml_sim.experiments.pipeline import Work, rows, train
from hpml_sim.experiments.plan import Point
from hpml_sim.experiments.run_folder import RunFolder
from hpml_sim.measurement.machine import versions
from hpml_sim.results import Key, Row, config_hash
from hpml_sim.training.progress import progress, quiet

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths of worker processes, without a new row between them, after which a run gives up."""

_ONE_TASK = threading.Lock()
"""Dask workers may have several threads; random states and thread counts belong to the whole process."""

Trained = Mapping[str, Tensor] | str
Pool = Callable[[Callable[..., Any], Iterable[tuple]], Iterator[Any]]
"""(function, arguments of each call) -> results, in any order."""


@dataclass(frozen=True)
class Workers:
    """Who computes.

    Attributes:
        jobs: processes on this machine, >= 1; 1 is this process itself.
        dask: address of a Dask scheduler whose workers compute instead; None where there is none.
    """

    jobs: int = 1
    dask: str | None = None

    @property
    def here(self) -> bool:
        """Whether this process computes itself."""
        return self.jobs == 1 and self.dask is None


def execute(
    work: Work, points: Sequence[Point], workers: Workers, *, folder: RunFolder | None, done: set[Key]
) -> Iterator[Row]:
    """Compute every row of these points that is not done, in any order.

    Args:
        work: what to compute with.
        points: the machines.
        workers: who computes.
        folder: keeps trained networks; None keeps them in memory.
        done: keys of rows that exist; the new ones are added to it.

    Raises:
        HpmlError: the data, a network or a machine failed; workers died again and again; no scheduler at the address.
    """
    deaths = 0
    total = sum(len(times) for _, _, times in _open(work, points, done))
    with progress(f"{work.plan.model} on {work.plan.data}", total) as step:
        while _open(work, points, done):
            try:
                for row in _attempt(work, points, workers, folder, done):
                    done.add(row.key)
                    deaths = 0
                    step(note=row.target)
                    yield row
            except BrokenProcessPool as error:
                deaths += 1
                _log.warning("a worker process died (killed, or out of memory); its rows are computed again")
                if deaths == MAX_DEATHS:
                    raise HpmlError(
                        f"worker processes died {deaths} times in a row (killed, or out of memory); finished rows are "
                        "safe. Run again with --resume and a smaller --jobs"
                    ) from error


def _open(work: Work, points: Sequence[Point], done: set[Key]) -> list[tuple[Point, int, tuple[float | None, ...]]]:
    """(point, seed, the times that are still missing), seed by seed."""
    found = []
    for seed in work.plan.seeds:
        for point in points:
            missing = tuple(t for t in point.times(work.plan) if (point.label, seed, t) not in done)
            if missing:
                found.append((point, seed, missing))
    return found


def _attempt(
    work: Work, points: Sequence[Point], workers: Workers, folder: RunFolder | None, done: set[Key]
) -> Iterator[Row]:
    tasks = _open(work, points, done)
    with _pool(work, workers) as pool:
        networks = {_network_key(point, seed): (point.network, seed) for point, seed, _ in tasks}
        trained = {key: folder.network(key) for key in networks} if folder is not None else {}
        calls = [(key, work, *networks[key]) for key in networks if trained.get(key) is None]
        with progress("networks", len(calls), enabled=len(calls) > 1) as step:
            for key, state in pool(_train, calls):
                trained[key] = state
                if folder is not None and not isinstance(state, str):
                    folder.save_network(key, state)
                step()
        for found in pool(rows, ((work, *task, trained[_network_key(*task[:2])]) for task in tasks)):
            yield from found


def _network_key(point: Point, seed: int) -> str:
    return f"{config_hash(point.network)}-{seed}"


def _train(key: str, work: Work, network: Mapping[str, Any], seed: int) -> tuple[str, Trained]:
    return key, train(work, network, seed)


# ----------------------------------------------------------------------------------------------------------- the pools


@contextlib.contextmanager
def _pool(work: Work, workers: Workers) -> Iterator[Pool]:
    if workers.dask is not None:
        with _cluster(workers.dask) as pool:
            yield pool
    elif workers.jobs > 1:
        yield partial(_processes, workers.jobs)
    elif work.plan.timed:
        yield _here
    else:
        with _one_thread():
            yield _here


def _here(function: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[Any]:
    return (function(*call) for call in calls)


def _processes(jobs: int, function: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[Any]:
    import joblib

    task = joblib.delayed(partial(_task, function, str(Path.cwd()), versions()["hpml_sim"]))
    with joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
        yield from joblib.Parallel(return_as="generator_unordered")(task(*call) for call in calls)


def in_order(rows: Iterable[Row], labels: Sequence[str]) -> tuple[Row, ...]:
    """Rows by target in the order asked for, then by seed, then by time.

    Args:
        rows: in any order.
        labels: of the targets.
    """
    order = {label: i for i, label in enumerate(labels)}
    return tuple(sorted(rows, key=lambda r: (order[r.target], r.seed, -1.0 if r.time_s is None else r.time_s)))


def workers_at(workers: Workers) -> int:
    """How many tasks can be computed at a time.

    Args:
        workers: who computes.

    Raises:
        HpmlError: no scheduler answers at the address.
    """
    if workers.dask is None:
        return workers.jobs
    with _client(workers.dask) as client:
        return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def _client(address: str) -> Client:
    with needs(f"dask={address!r}", "hpml_sim[cluster]"):
        from distributed import Client
    try:
        return Client(address, timeout="20s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise HpmlError(
            f"dask={address!r}: no scheduler answers ({type(error).__name__}: {error}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS --nworkers auto --nthreads 1`"
        ) from error


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Pool]:
    client = _client(address)
    from distributed import KilledWorker, as_completed

    def pool(function: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[Any]:
        task = partial(_task, function, str(Path.cwd()), versions()["hpml_sim"])
        try:
            futures = [client.submit(task, *call, pure=False) for call in calls]
            for _, result in as_completed(futures, loop=client.loop, with_results=True):
                yield result
        except KilledWorker as error:
            raise HpmlError(
                f"a task ended every Dask worker that it ran on (out of memory?): {error}; finished rows are safe. "
                "Give the workers more memory, then run again with --resume"
            ) from error

    with client:
        yield pool


def _task(function: Callable[..., Any], folder: str, version: str, *arguments: Any) -> Any:
    """Run one task in a worker: alone in its process, on one thread, in the folder that the run was started in."""
    if (ours := versions()["hpml_sim"]) != version:
        raise HpmlError(f"a worker has hpml_sim {ours}, the run is of {version}; install the same version on both")
    there = contextlib.chdir(folder) if Path(folder).is_dir() else contextlib.nullcontext()
    with _ONE_TASK, _one_thread(), quiet(), there:
        result = function(*arguments)
        return list(result) if isinstance(result, Iterator) else result


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads changes the last bits of a sum; with one, all workers get the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
