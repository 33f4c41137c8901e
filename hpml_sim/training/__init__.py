"""Training, evaluation, distillation, and several processes.

fitting.py       fit: the training loop
history.py       what a training did, epoch by epoch
pace.py          the way of the learning rate, the largest gradient
execution.py     autocast, checkpointing, compilation
gradients.py     gradient descent on parameters (other weights: conversion/training_sessions.py)
distillation.py  the task's loss, with the labels and with a teacher
loading.py       batches, shared out among processes
distributed.py   the processes that train one network together
evaluation.py    evaluate: the scores of a network or of programmed chips
progress.py      the progress bar
"""

from hpml_sim.training.evaluation import evaluate as evaluate
from hpml_sim.training.fitting import fit as fit
from hpml_sim.training.history import History as History
