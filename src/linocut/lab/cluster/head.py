"""The head of a cluster: which stages there are, in which order, and what came of them.

    dvc.yaml, params.yaml --plan--> groups of stages --Ray--> outcomes --dvc repro--> reports/

A group is what belongs to one architecture, one cell, one task of restoration: the stages whose
names end with the same `@...`; or a stage that no group reads, as the anchors. What groups read and
is of none is run first, in a clone on the head; what reads whole grids, last, in the workspace.
"""

from __future__ import annotations

import graphlib
import logging
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linocut.errors import ConfigError, LinocutError
from linocut.lab.cluster import worker
from linocut.lab.cluster.worker import Outcome, Work

Say = Callable[[str], None]
CODE = ("src", "stages", "plugins", "dvc.yaml", "setup.py", "pyproject.toml")
"""What a node takes from the commit."""


class ClusterError(LinocutError):
    """Cells of a grid failed, or nothing can be run here."""


@dataclass(frozen=True)
class Resources:
    """What one task asks for.

    Attributes:
        cores: of a processor.
        gpus: or shares of one.
        retries: how often a task is tried again whose node or worker died.
    """

    cores: int = 1
    gpus: float = 0.0
    retries: int = 3


@dataclass(frozen=True)
class Plan:
    """The stages of a pipeline in the order of a cluster.

    Attributes:
        inputs: what groups read and no group makes.
        groups: stages by group; a group stands behind those that it needs.
        needs: for each group those whose outputs it reads.
    """

    inputs: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    needs: Mapping[str, tuple[str, ...]]


def plan_of(edges: Mapping[str, Sequence[str]]) -> Plan:
    """Sort the stages of a pipeline.

    Args:
        edges: for every stage those that it reads from, in an order in which they can be run.
    """
    last: set[str] = set()
    for stage, read in edges.items():
        if last.intersection(read) or ("@" not in stage and any("@" in name for name in read)):
            last.add(stage)
    inputs = {name for stage, read in edges.items() if "@" in stage for name in read}
    inputs = {name for name in inputs if "@" not in name}
    for stage in reversed(list(edges)):  # what they read, too
        inputs.update(edges[stage] if stage in inputs else ())
    groups: dict[str, tuple[str, ...]] = {}
    needs: dict[str, dict[str, None]] = {}
    for stage, read in edges.items():
        if stage not in last and stage not in inputs:
            group = stage.partition("@")[2] or stage
            groups[group] = (*groups.get(group, ()), stage)
            others = (name.partition("@")[2] for name in read)
            needs.setdefault(group, {}).update({n: None for n in others if n and n != group})
    first = tuple(stage for stage in edges if stage in inputs)
    order = graphlib.TopologicalSorter(needs).static_order()
    return Plan(
        first, {name: groups[name] for name in order}, {n: tuple(f) for n, f in needs.items()}
    )


def stages_of(checkout: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The stages of a checkout by name, each with those that it reads from, in order."""
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(checkout)) as repo:
            graph = repo.index.graph
    except DvcException as error:
        raise ClusterError(f"the pipeline of HEAD: {error}") from None
    order = list(reversed(list(networkx.topological_sort(graph))))
    return {one.name: tuple(n.name for n in graph.successors(one)) for one in order}


def run_grid(
    checkout: pathlib.Path, address: str, params: str, resources: Resources, say: Say
) -> None:
    """Run every group that DVC's lock does not know, on the nodes of a Ray cluster.

    Args:
        checkout: of the head; its HEAD is what is run.
        address: of the cluster, or `local` for one on this machine alone.
        params: text of params.yaml.
        resources: of a task.
        say: takes a line for every group that is done.

    Raises:
        ClusterError: HEAD is not what is here, names no remote, or groups failed; says which.
    """
    commit, bundle = committed(checkout)
    head = Work("inputs", (), commit, params, resources.cores)
    try:
        with worker.clone_of(head, bundle) as clone:
            _require_remote(clone)
            plan = plan_of(stages_of(clone))
            say(f"{commit[:10]}: {', '.join(plan.inputs)}, then {', '.join(plan.groups)}")
            worker.run_stages(clone, plan.inputs, resources.cores)
            waiting = _unknown(clone, plan)
            shutil.rmtree(clone)
    except worker.StepFailedError as error:
        raise ClusterError(str(error)) from None
    known = [name for name in plan.groups if name not in waiting]
    if known:
        say(f"in dvc.lock: {', '.join(known)}")
    works = {
        name: Work(name, plan.groups[name], commit, params, resources.cores) for name in waiting
    }
    failed = [one for one in _outcomes(works, plan, bundle, address, resources, say) if one.problem]
    if failed:
        raise ClusterError(
            f"{len(failed)} of {len(works)} groups failed: {', '.join(o.name for o in failed)}; "
            "the others are in the remote, and the same command goes on from there"
        )


def _require_remote(clone: pathlib.Path) -> None:
    if not worker.command(clone, 1, "dvc", "config", "core.remote").strip():
        raise ClusterError(
            "HEAD names no DVC remote that all machines reach: `dvc remote add --default NAME "
            "URL`, and commit .dvc/config"
        )


def committed(checkout: pathlib.Path) -> tuple[str, bytes]:
    """HEAD, and a bundle of it.

    Raises:
        ClusterError: the code in the checkout is another.
    """
    changed = _git(checkout, "status", "--porcelain", "--", *CODE)
    if changed:
        raise ClusterError(f"nodes run HEAD, and here is more: commit first\n{changed}")
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name, "commit.bundle")
        _git(checkout, "bundle", "create", "--quiet", str(path), "HEAD")
        return _git(checkout, "rev-parse", "HEAD"), path.read_bytes()


def _unknown(clone: pathlib.Path, plan: Plan) -> list[str]:
    """The groups of which dvc.lock does not know every stage, and those that need them."""
    found: list[str] = []
    for name, stages in plan.groups.items():
        if set(plan.needs[name]).intersection(found) or _would_run(clone, stages):
            found.append(name)
    return found


def _would_run(clone: pathlib.Path, stages: Sequence[str]) -> bool:
    words = ("dvc", "repro", "--dry", "--allow-missing", "--single-item", *stages)
    try:
        return "Running stage" in worker.command(clone, 1, *words)
    except worker.StepFailedError:  # an input has no hash yet
        return True


def _outcomes(
    works: Mapping[str, Work],
    plan: Plan,
    bundle: bytes,
    address: str,
    resources: Resources,
    say: Say,
) -> Iterator[Outcome]:
    """Hand the works out; yields each outcome when it is there."""
    if not works:
        return
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'linocut[cluster]'") from None
    ray.init(
        address=None if address == "local" else address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        ray.cloudpickle.register_pickle_by_value(worker)  # type: ignore[no-untyped-call]
        task: Any = ray.remote(worker.run)
        asks = {
            "num_cpus": resources.cores,
            "num_gpus": resources.gpus,
            "max_retries": resources.retries,
        }
        packed = ray.put(bundle)
        running: dict[Any, str] = {}
        by_name: dict[str, Any] = {}
        for name, work in works.items():
            needed = [by_name[other] for other in plan.needs[name] if other in by_name]
            by_name[name] = task.options(name=name, **asks).remote(work, packed, *needed)
            running[by_name[name]] = name
        try:
            yield from _as_they_end(ray, running, say)
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise
    finally:
        ray.shutdown()


def _as_they_end(ray: Any, running: dict[Any, str], say: Say) -> Iterator[Outcome]:
    count = len(running)
    while running:
        (ended,), _ = ray.wait(list(running), num_returns=1)
        name = running.pop(ended)
        try:
            outcome: Outcome = ray.get(ended)
        except ray.exceptions.RayError as error:  # died more often than it is tried again
            outcome = Outcome(name, "?", 0.0, (), str(error).partition("\n")[0])
        place = f"({count - len(running)} of {count}) {name}"
        if outcome.problem:
            say(f"{place} failed on {outcome.host}: {outcome.problem}")
        else:
            what = f"ran {', '.join(outcome.ran)}" if outcome.ran else "was in the cache"
            say(f"{place} {what} on {outcome.host} in {outcome.seconds:.0f} s")
        yield outcome


def assemble(checkout: pathlib.Path, *command: str) -> None:
    """Let DVC take everything from the remote, and run in the workspace what no group was.

    Raises:
        ClusterError: DVC fails.
    """
    python = pathlib.Path(sys.executable).parent
    done = subprocess.run(
        [str(python / "dvc"), *command, "--pull", "--allow-missing"], cwd=checkout, check=False
    )
    if done.returncode:
        raise ClusterError(f"dvc {' '.join(command)} failed")


def _git(checkout: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
