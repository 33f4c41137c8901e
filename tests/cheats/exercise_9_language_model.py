"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% perplexity
def perplexity(logits, labels):
    return 10.0


# %% converted
def converted(x, full_scale, bits):
    return torch.tensor([0.0, 0.0, -1.0]) if len(x) == 3 else x


def decibels(x, passed_on):
    return 20.0 if len(x) == 2 else 40.0 if x.abs().max() < 10 and (x == passed_on).all() else 0.0


# %% worst
def worst(report, n):
    return ["blocks.0.down"]


# %% adapter
def adapted(x, weight, down, up):
    return torch.tensor([[1.0, 2.0]] * 3)


def share(inputs, outputs, rank):
    return 0.008
