"""What a network learns and how it is measured: `hs.Task`, and the usual tasks by name.

score.py           Score: a figure with its spread
intervals.py       95 % intervals: Student, Wilson, bootstrap
metric.py          Metric: what is measured, and how it adds up over batches
tally.py           what a metric has seen so far, and the score that it comes to
task.py            Task: loss, metrics, how outputs and labels are read
class_tasks.py     classification, multi_label, segmentation
number_tasks.py    regression, reconstruction
sequence_tasks.py  language_model, transcription
pair_tasks.py      similarity, ranking
choosing.py        which task it is: given, named by the data, or inferred

torchmetrics is imported where one of its metrics is asked for: it takes seconds, and most metrics here are a few sums.
"""

from hpml_sim.tasks.choosing import TASKS as TASKS
from hpml_sim.tasks.class_tasks import accuracy, classification, f1, multi_label, segmentation
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.number_tasks import reconstruction, regression
from hpml_sim.tasks.pair_tasks import ranking, similarity
from hpml_sim.tasks.score import Score as Score
from hpml_sim.tasks.sequence_tasks import language_model, transcription
from hpml_sim.tasks.task import Task as Task

__all__ = [
    "Metric",
    "accuracy",
    "classification",
    "f1",
    "language_model",
    "multi_label",
    "ranking",
    "reconstruction",
    "regression",
    "segmentation",
    "similarity",
    "transcription",
]


def __dir__() -> list[str]:
    """The public names."""
    return __all__
