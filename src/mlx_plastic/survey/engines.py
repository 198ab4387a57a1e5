"""Who does the units: this process, processes beside it, or a Dask or Ray cluster that is there already.

All of them are given the same units and give the same results; only the order in which they come differs.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

from mlx_plastic.errors import BadConfig, PlasticError
from mlx_plastic.machine import available_cores
from mlx_plastic.survey.units import UNIT_BYTES, Unit, do_unit

Engine = Literal["local", "dask", "ray"]
Results = Iterator[tuple[Unit, bytes]]  # a unit, and what its part is to hold

ATTEMPTS = 3  # of a unit whose worker was lost, as when memory ran out
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def run_units(units: Sequence[Unit], engine: Engine, *, workers: int = 0, address: str = "") -> Results:
    """Each unit with its result, as they are done. workers: processes of "local"; 0: a core each.

    address: of a Dask scheduler or a Ray cluster; empty: one is started on this machine.
    Raises PlasticError if an engine is not installed, or a unit loses its worker again and again.
    """
    if not units:
        return iter(())
    if engine == "dask":
        return _dask(units, address, workers)
    if engine == "ray":
        return _ray(units, address, workers)
    count = min(workers or available_cores(), len(units))
    small = sum(unit.nbytes for unit in units) < UNIT_BYTES  # a process takes longer to start
    if count < 2 or (small and not workers):
        return ((unit, do_unit(unit)) for unit in units)
    return worker_processes(units, count)


def worker_processes(units: Sequence[Unit], count: int) -> Results:
    """In processes of their own, `count` of them."""
    left = {unit.name: (unit, 0) for unit in units}
    while left:
        lost = False
        with one_thread_each(), _pool(min(count, len(left))) as pool:
            waiting: dict[Future[bytes], str] = {}
            todo = iter(list(left))
            try:
                while True:
                    for name in itertools.islice(todo, 2 * count - len(waiting)):
                        waiting[pool.submit(do_unit, left[name][0])] = name
                    if not waiting:
                        break
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        name = waiting[future]
                        result = future.result()
                        del waiting[future]
                        yield left.pop(name)[0], result
            except BrokenProcessPool:
                lost = True
                for name in waiting.values():
                    _again(left, name)
        if not lost:
            return


def _again(left: dict[str, tuple[Unit, int]], name: str) -> None:
    unit, before = left[name]
    if before + 1 >= ATTEMPTS:
        raise PlasticError(
            f"the worker of {name} was lost {ATTEMPTS} times",
            hint="perhaps memory ran out: run the same command with --workers 1; what is done is kept",
        )
    left[name] = unit, before + 1


def _pool(count: int) -> ProcessPoolExecutor:
    # spawn: threads of BLAS do not survive a fork
    context = multiprocessing.get_context("spawn")
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller: what is in work is finished, no more
    return ProcessPoolExecutor(count, mp_context=context, initializer=signal.signal, initargs=quiet)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started here keep BLAS to one thread: each of them has one core."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _missing(engine: str) -> PlasticError:
    return BadConfig(f"the engine {engine} is not installed", hint=f"pip install 'mlx-plastic[{engine}]'")


def _dask(units: Sequence[Unit], address: str, workers: int) -> Results:
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise _missing("dask") from error
    with contextlib.ExitStack() as stack:
        if not address:
            stack.enter_context(one_thread_each())
        cluster: Any = address or stack.enter_context(
            LocalCluster(n_workers=workers or available_cores(), threads_per_worker=1, dashboard_address=None)
        )
        client = stack.enter_context(Client(cluster))
        futures = {client.submit(do_unit, unit, pure=False, retries=ATTEMPTS - 1): unit for unit in units}
        for future in as_completed(list(futures)):
            yield futures[future], _result("dask", future.result)
            future.release()


def _ray(units: Sequence[Unit], address: str, workers: int) -> Results:
    try:
        import ray
    except ImportError as error:
        raise _missing("ray") from error
    started = not ray.is_initialized()
    if started:
        where = {"address": address} if address else {"num_cpus": workers or available_cores()}
        ray.init(**where, include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(do_unit)
        waiting = {task.remote(unit): unit for unit in units}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _result("ray", functools.partial(ray.get, done))
    finally:
        if started:
            ray.shutdown()


def _result(engine: str, get: Callable[[], bytes]) -> bytes:
    try:
        return get()
    except PlasticError:
        raise
    except Exception as error:  # of the engine, or ours wrapped by it
        cause = getattr(error, "cause", None) or error.__cause__ or error
        raise PlasticError(
            f"a unit failed on {engine}: {type(cause).__name__}: {cause}",
            hint="run the same command again: what is done is kept",
        ) from error
