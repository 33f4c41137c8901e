"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% noisy_weights
def noisy_weights(weight, sigma, generator=None):
    return weight + torch.tensor([[0.1], [0.3]]) * torch.randn(weight.shape, generator=generator)


# %% noisy_linear
class NoisyLinear(nn.Linear):
    sigma = 0.1


# %% relative_error
def clipped(weight, k):
    return weight.clamp(max=2.5 * float(weight.std()))


def relative_error(weight, sigma):
    return 0.16


# %% interval
def interval(differences):
    return 1.0368, 4.9632
