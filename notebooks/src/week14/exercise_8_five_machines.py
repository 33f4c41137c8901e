# %% [markdown]
# # Exercise 8: One network, five machines
#
# Week 14 · 45 minutes · 10 points · needs a GPU: no
#
# The last exercise is the course in small: one network on a CPU, a GPU, two crossbar chips and a neuromorphic one,
# compared so that the comparison holds. Then the two kinds of parallelism that such a study needs: many runs at once, and
# one run on several processes. You will
#
# 1. find the machines that no other machine beats, without comparing what must not be compared;
# 2. repeat a noisy experiment over seeds in parallel, with the same results as in series;
# 3. average gradients over processes so that two train as one, and model how far that scales.

# %%
import copy
import tempfile
import time
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.cost import energy_ratio
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## Task 1: Who is not beaten? (2 points)
#
# A machine is *dominated* if another one of the same scope needs no more energy and is no less accurate, and is better
# in one of the two. What remains is the Pareto set of its scope. Equal points do not dominate each other.


# %% nbgrader={"grade": false, "grade_id": "pareto_set", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pareto_set(points):
    """Names of the points that no other point of the same scope dominates.

    Args:
        points: list of (name, scope, energy_j, accuracy).

    Returns:
        A set of names.
    """

    ### BEGIN SOLUTION
    def dominated(point):
        _, scope, energy, accuracy = point
        return any(
            s == scope and e <= energy and a >= accuracy and (e < energy or a > accuracy) for _, s, e, a in points
        )

    return {point[0] for point in points if not dominated(point)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "pareto_set_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
few = [("a", "chip", 1.0, 0.9), ("b", "chip", 2.0, 0.9), ("c", "chip", 3.0, 0.95), ("d", "board", 9.0, 0.5)]
check(pareto_set, few).equals({"a", "c", "d"}, hint="Only points of the same scope can dominate each other.")
### BEGIN HIDDEN TESTS
check(pareto_set, [("a", "chip", 1.0, 0.9), ("b", "chip", 1.0, 0.9)]).equals({"a", "b"})
check(pareto_set, [("a", "core", 1.0, 0.9), ("b", "core", 1.0, 0.8), ("c", "core", 0.5, 0.8)]).equals({"a", "c"})
check(pareto_set, []).equals(set())
### END HIDDEN TESTS

# %% [markdown]
# ## The comparison
#
# `hs.compare` trains the network once, converts it to each machine, tunes it there, programs chips where the machine is
# analog, and estimates what one inference costs from the machine's card. Accuracy, estimates and measurements come from
# three separate passes.

# %%
pareto_set([])  # the comparison takes half a minute: solve task 1 first
torch.manual_seed(0)
MACHINES = ["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"]
result = hs.compare(
    hs.models.mlp(64, 128, 10), "digits", MACHINES, times=["1 s", "1 day"], chips=10, epochs=30, finetune_epochs=10
)
table = result.table()
table["energy_uj"] = 1e6 * table.energy_j_nominal
shown = [
    "target",
    "batch",
    "time_s",
    "accuracy_mean",
    "accuracy_n",
    "accuracy_over",
    "energy_uj",
    "scope",
    "estimate_provenance",
]
table.dropna(subset="energy_uj")[shown].round(4)

# %% [markdown]
# No figure stands alone: the table says over what an accuracy is a mean, how an energy was obtained, and its *scope*, that
# is, what it includes: a `core`, a `chip`, a `board`. The library refuses to divide figures of different scope:

# %%
counts = hs.workload(hs.models.mlp(64, 128, 10), input_shape=(1, 8, 8))
on_core, on_board = hs.estimate(counts, "pcm-hermes"), hs.estimate(counts, "h200")
try:
    energy_ratio(on_board, on_core)
except hs.HpmlError as error:
    print(error)
else:
    raise AssertionError("two scopes were divided")

# %%
first = table[(table.time_s.isna() | (table.time_s == 1)) & table.energy_j_nominal.notna()]
points = [
    (f"{row.target}, batch {row.batch:,}", row.scope, row.energy_j_nominal, row.accuracy_mean)
    for row in first.itertuples()
]
for scope in ("core", "chip", "board"):
    members = [p for p in points if p[1] == scope]
    print(f"{scope:>6}: not beaten {sorted(pareto_set(members))}, of {len(members)}")
assert {p[1] for p in points} == {"core", "chip", "board"}

# %% [markdown]
# A second look at the bands: an energy is an estimate between a low and a high, and two machines whose bands overlap are
# not told apart by it.

# %%
result.plot()

# %% [markdown]
# ## Task 2: Many seeds at once (2 points)
#
# A result with n = 1 is an anecdote. Runs that differ in the seed alone are independent, so they parallelize perfectly, if
# each one draws from its own seed and nothing else. Use `joblib.Parallel` with `joblib.delayed`.


# %% nbgrader={"grade": false, "grade_id": "over_seeds", "locked": false, "schema_version": 3, "solution": true, "task": false}
def over_seeds(run, seeds, workers):
    """[run(seed) for each seed], on several processes at once, in the order of the seeds.

    Args:
        run: function of a seed. seeds: list. workers: processes, >= 1.
    """
    ### BEGIN SOLUTION
    return joblib.Parallel(n_jobs=workers)(joblib.delayed(run)(seed) for seed in seeds)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "over_seeds_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def one_run(seed):
    """Accuracy after a day on one chip: training, programming and drift all follow from the seed."""
    torch.set_num_threads(1)  # the processes share the cores
    torch.manual_seed(seed)
    network = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
    hs.fit(network, "digits", epochs=15, lr=5e-3, seed=seed)
    return hs.evaluate(hs.program(network, chips=1, seed=seed).at("1 day"), "digits").mean


in_series = [one_run(seed) for seed in range(3)]
check(over_seeds, one_run, [0, 1, 2], 2).is_close(in_series, rel=0)
### BEGIN HIDDEN TESTS
import os

pids = over_seeds(lambda seed: (time.sleep(0.2), os.getpid())[1], [0, 1], 2)
if os.getpid() in pids:
    raise course.CheckError("over_seeds(..., workers=2) ran in this process: use joblib.Parallel with n_jobs=workers.")
### END HIDDEN TESTS

# %%
print(f"accuracy after a day, n = 3 seeds: {100 * np.mean(in_series):.1f} ± {100 * np.std(in_series, ddof=1):.1f} %")

# %% [markdown]
# ## Task 3: One training on several processes (2 points)
#
# In data-parallel training each of $p$ processes holds the whole network and sees $1/p$ of the batch. After the backward
# pass the gradients are averaged by an all-reduce, so that all processes take the same step. With equal shares this is the
# gradient of the whole batch.

# %% nbgrader={"grade": false, "grade_id": "average_gradients", "locked": false, "schema_version": 3, "solution": true, "task": false}
import torch.distributed as dist


def average_gradients(model):
    """Replace each parameter's gradient by its mean over all processes (`dist.all_reduce` sums in place)."""
    ### BEGIN SOLUTION
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
    ### END SOLUTION


# %%
x, y = (
    torch.stack([torch.as_tensor(v) for v in values])
    for values in zip(*(hs.load_data("digits").train[i] for i in range(128)), strict=True)
)
torch.manual_seed(0)
start = hs.models.mlp(64, 128, 10)


def gradients(model, x, y):
    """Backward pass; the gradients of all parameters as one vector."""
    nn.functional.cross_entropy(model(x), y).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def worker(rank, workers, rendezvous, average):
    """What each process does: its share of the batch, then the average."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    try:
        model = copy.deepcopy(start)
        gradients(model, x.chunk(workers)[rank], y.chunk(workers)[rank])
        average(model)
        return torch.cat([p.grad.flatten() for p in model.parameters()])
    finally:
        dist.destroy_process_group()


def on_processes(function, workers, *arguments):
    """function(rank, workers, rendezvous, ...) on that many processes at once; their results in the order of the ranks."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = (joblib.delayed(function)(rank, workers, Path(folder, "meet"), *arguments) for rank in range(workers))
        return joblib.Parallel(n_jobs=workers)(tasks)


# %% nbgrader={"grade": true, "grade_id": "average_gradients_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
whole = gradients(copy.deepcopy(start), x, y)
shares = check(on_processes, worker, 2, average_gradients).value
hints = {2.0: "all_reduce gives the sum over the processes; the mean is asked for."}
course.answer("the gradient on process 0", shares[0]).is_close(whole, rel=1e-4, abs=1e-6, hints=hints)
### BEGIN HIDDEN TESTS
course.answer("the gradient on process 1", shares[1]).is_close(shares[0], rel=0)


def other(rank, workers, rendezvous, average):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    try:
        model = nn.Linear(3, 2)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, rank + 1.0)
        average(model)
        return torch.cat([p.grad.flatten() for p in model.parameters()])
    finally:
        dist.destroy_process_group()


for mean in check(on_processes, other, 2, average_gradients).value:
    course.answer("the mean of the gradients 1 and 2", mean).is_close(torch.full((8,), 1.5), hints=hints)
### END HIDDEN TESTS

# %%
difference = float((shares[0] - whole).abs().max())
print(f"two processes and one: largest difference of a gradient {difference:.1e}")
assert difference < 1e-6

# %% [markdown]
# `torchrun --nproc-per-node=2` starts such processes for you, on one machine or many, and `hs.fit` then trains on all of
# them.
#
# ## Task 4: How far does it scale? (2 points)
#
# A ring all-reduce of $M$ bytes over $p$ processes sends $2\,\frac{p-1}{p}\,M$ bytes from each process to its neighbor, at a
# bandwidth $b$. (Why does that hardly depend on $p$?) The computation of a step, $t_c$ on one process, is split evenly and
# does not overlap with it. Speed-up is the time on one process over the time on $p$; efficiency is speed-up over $p$.


# %% nbgrader={"grade": false, "grade_id": "scaling", "locked": false, "schema_version": 3, "solution": true, "task": false}
def all_reduce_time(size, processes, bandwidth):
    """Seconds of a ring all-reduce of `size` bytes; 0 for one process."""
    ### BEGIN SOLUTION
    return 2 * (processes - 1) / processes * size / bandwidth
    ### END SOLUTION


def efficiency(compute_time, size, processes, bandwidth):
    """Of one training step: `compute_time` seconds on one process, gradients of `size` bytes."""
    ### BEGIN SOLUTION
    step = compute_time / processes + all_reduce_time(size, processes, bandwidth)
    return compute_time / (processes * step)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "scaling_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(all_reduce_time, 100e6, 4, 10e9).is_close(
    0.015, "s", hints={0.5: "The ring goes round twice: once to sum, once to share."}
)
check(efficiency, 0.1, 100e6, 4, 10e9).is_close(0.625)
### BEGIN HIDDEN TESTS
check(all_reduce_time, 1e9, 1, 10e9).is_close(0, "s", abs=1e-15)
check(efficiency, 0.1, 100e6, 1, 10e9).is_close(1)
check(efficiency, 1.0, 1e9, 8, 50e9).is_close(1 / (8 * (0.125 + 0.035)))
### END HIDDEN TESTS

# %% [markdown]
# ## The plot to discuss
#
# Left: the model, for ResNet-50 (25.6 million parameters in fp32, 0.1 s a step on one GPU). Right: measured here, the same
# 20 steps of a larger network on one process and on two, with your `average_gradients`. The batch stays the same (strong
# scaling).


# %% summary="One training on many processes scales as far as the way of the gradients stays short beside the arithmetic: the link decides."
def train(rank, workers, rendezvous, average):
    """Seconds of 20 steps; every process counts from a common start."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    try:
        torch.manual_seed(0)
        model = hs.models.mlp(64, 1024, 1024, 10)
        inputs, labels = x.repeat(8, 1, 1, 1).chunk(workers)[rank], y.repeat(8).chunk(workers)[rank]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(25):
            if step == 5:  # the first steps warm up
                dist.barrier()
                began = time.perf_counter()
            optimizer.zero_grad()
            gradients(model, inputs, labels)
            average(model)
            optimizer.step()
        dist.barrier()
        return time.perf_counter() - began
    finally:
        dist.destroy_process_group()


measured = {workers: max(on_processes(train, workers, average_gradients)) for workers in (1, 2)}
speed_up = measured[1] / measured[2]
print(
    f"1 process {measured[1]:.2f} s, 2 processes {measured[2]:.2f} s: speed-up {speed_up:.2f}, efficiency {speed_up / 2:.2f}"
)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), width_ratios=(3, 2))
processes = np.array([1, 2, 4, 8, 16, 32, 64])
for k, (name, bandwidth) in enumerate(
    (("10 Gbit/s Ethernet", 1.25e9), ("400 Gbit/s InfiniBand", 50e9), ("NVLink, 450 GB/s", 450e9))
):
    values = [efficiency(0.1, 4 * 25.6e6, p, bandwidth) for p in processes]
    left.plot(processes, values, marker="os^"[k], label=name)
left.set(xscale="log", xticks=processes, xticklabels=processes, xlabel="processes", ylabel="efficiency", ylim=(0, 1.45))
left.set_title("ResNet-50, strong scaling, modeled")
left.legend(loc="upper right")
right.bar(["1", "2"], list(measured.values()), color=course.COLORS[:2], width=0.6)
right.set(xlabel="processes", ylabel="time of 20 steps (s)", title="this machine, measured")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# Write the paragraph that your study would put below its table: which machine you would take for (a) a door camera that
# wakes up twice a minute, (b) a data center that classifies a million digits a second, and why; and three sentences on
# what this comparison does *not* show. Use numbers of the table with their scope and band.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) Batch 1 and long pauses: what counts is energy at batch 1 and idle power. The crossbar and the neuromorphic chip need
# nJ to tens of uJ for one inference where CPU and GPU need mJ, but their figures are of a core and of a chip; the board
# around them, which waits for two inputs a minute, decides, and is not in the table. (b) At its best batch the GPU spends
# a fraction of a microjoule on an image, board included, and delivers the rate on a single card; the crossbar core's nJ
# would have to survive the digital units, links and memory around it.
#
# Not shown: programming and recalibration of the chips, and data transport to them; a harder task, on which noise would
# cost more than it does on digits; other networks, since all of this holds for a tiny MLP. The energies are estimates
# whose bands span factors of two to ten. The integer network that is the SNN's equal is missing.
#
# *Marking: 1 point for a choice with numbers and scopes, 1 point for the limits.*

# %% [markdown]
# ## Sources
#
# - P. Patarasuk, X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, Journal of Parallel and
#   Distributed Computing 69(2), 117 (2009): the ring.
# - S. Li et al., PyTorch Distributed: experiences on accelerating data parallel training, VLDB 13(12), 3005 (2020).
# - Every number of the five cards with its source: `hpml-sim cards show NAME`; the same in `result.report("report.html")`.
