"""The hot loops, one folder an operation; in each the same files, so that an implementation is found in one guess.

    dispatch.py    the call: checks its arguments, picks an implementation, and (with torch.autograd) the way back
    reference.py   the definition, in plain torch or numpy, with the equations and their source
    cpu.py         numba on the CPU
    cuda.py        numba-CUDA, also run by numba's simulator where there is no GPU

Files that an operation has no use for are not there: what runs on CPUs alone has nothing to dispatch.

    lif/                leaky integrate-and-fire neurons
    neurons/            all other neurons; `dynamics/` has the equations, one file a neuron
    recurrent/          neurons that get back each other's spikes
    surrogates/         surrogate gradients of the spike
    rate_encoding/      values into Bernoulli spikes
    crossbar_product/   a product between a DAC and an ADC; also its training, and the read-out that drift compensation
                        needs
    device_noise/       programming noise, drift and read noise of phase-change devices
    random/             seeded normal numbers
    common/             launch on GPUs, the choice of an engine, threads, memory that is used again

All but `surrogates` and `common` import numba; the rest of the package imports them only when it first needs them.
"""
