"""Training, evaluation, distillation, and several processes."""

from hpml_sim.training.evaluation import evaluate as evaluate
from hpml_sim.training.fitting import History as History
from hpml_sim.training.fitting import fit as fit
from hpml_sim.training.score import Score as Score
