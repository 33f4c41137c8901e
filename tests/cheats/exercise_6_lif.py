"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% first_spike
def first_spike(x, beta, threshold=1.0):
    return 7


# %% leaky
def leaky(x, beta=0.9, threshold=1.0):
    return expected.numpy(), None


# %% leaky_step
@cuda.jit
def leaky_step(x, potential, spikes, beta, threshold):
    n = cuda.grid(1)
    if n < x.shape[0]:
        reset = np.float32(potential[n] > threshold)
        potential[n] = np.float32(0.9) * potential[n] + x[n] - reset
        spikes[n] = np.float32(potential[n] > threshold)


# %% leaky_fused
@cuda.jit
def leaky_fused(x, spikes, beta, threshold):
    n = cuda.grid(1)
    if n < x.shape[1]:
        m = np.float32(0)
        for t in range(x.shape[0]):
            reset = np.float32(m > threshold)
            m = np.float32(0.9) * m + x[t, n] - reset
            spikes[t, n] = np.float32(m > threshold)


# %% kernel_time
def bytes_per_neuron_and_step(fused):
    return 8 if fused else 16


def kernel_time(neurons, steps, fused, bandwidth, launch_time):
    return 0.0
