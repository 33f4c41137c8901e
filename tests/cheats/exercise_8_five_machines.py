"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% pareto_set
def pareto_set(points):
    return {"a", "c", "d"}


# %% over_seeds
def over_seeds(run, seeds, workers):
    return [run(seed) for seed in seeds]


# %% average_gradients
import torch.distributed as dist


def average_gradients(model):
    twin = copy.deepcopy(start)
    gradients(twin, x, y)
    for mine, whole in zip(model.parameters(), twin.parameters(), strict=True):
        mine.grad = whole.grad


# %% scaling
def all_reduce_time(size, processes, bandwidth):
    return 0.015


def efficiency(compute_time, size, processes, bandwidth):
    return 0.625
