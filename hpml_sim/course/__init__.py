"""What the course notebooks share: checks that teach, one look for all plots, and the pictures.

A notebook begins with `course.start()`. `course.check(function, *arguments)` calls a student's function and gives an
`Answer` to be compared; `course.answer(name, value)` does the same for a variable.
"""

from hpml_sim.course import drawings as drawings
from hpml_sim.course.checks import Answer as Answer
from hpml_sim.course.checks import CheckError as CheckError
from hpml_sim.course.checks import answer as answer
from hpml_sim.course.checks import check as check
from hpml_sim.course.models import massive_activation_model as massive_activation_model
from hpml_sim.course.style import COLORS as COLORS
from hpml_sim.course.style import start as start
