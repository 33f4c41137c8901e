"""Language models on GPUs: what a step costs, on one GPU or several, and what an engine makes of many requests.

estimating.py    the estimate of a known language model: prefill, decode, serve
request.py       what is asked: phase, batch, lengths
stored_weights.py  what pruning and quantizing make of the matrices
scheduling.py    continuous batching: steps, tokens a second, joules a token
step.py          seconds and watts of one step
operations.py    the kernels of one step on one GPU of several
collectives.py   exchange between GPUs
splits.py        which splits a network allows
memory.py        weights and key-value cache against the memory
tables.py        a card's tables, or another card's, scaled
"""
