"""The plots, as matplotlib figures that belong to no global state.

- `accuracy_over_time(rows)`: what drift does to the accuracy
- `energy_against_accuracy(rows)`: a panel a scope, with its Pareto front
- `which_machine(rows)`: energy, latency, throughput, operations a joule of all machines at system scope
- `energy_by_part(rows)`: where the energy goes, by component and by layer
- `layer_roofline(rows)`: the layers under the ceilings of each CPU and GPU
- `machine_roofline(roofs, points)`: ceilings, layers, kernels, crossbar tiles and neuromorphic cores in one plane
- `draw_trials(trials, columns)`: the trials of a search and their Pareto front
- `to_svg(figure)`: the same bytes for the same figure, with the texts that appear under the pointer
"""

from hpml_sim.report.plots.accuracy_time import accuracy_over_time, same_line
from hpml_sim.report.plots.drawing import Style, style_of, to_svg
from hpml_sim.report.plots.energy_accuracy import energy_against_accuracy, notable
from hpml_sim.report.plots.energy_parts import energy_by_part
from hpml_sim.report.plots.machines import operations_a_joule, which_machine
from hpml_sim.report.plots.pareto import draw_trials, on_front, pareto_front
from hpml_sim.report.plots.roofline import layer_points, layer_roofline, machine_roofline
from hpml_sim.report.plots.theme import COLORS, GRID, INK, PAPER

__all__ = [
    "COLORS",
    "GRID",
    "INK",
    "PAPER",
    "Style",
    "accuracy_over_time",
    "draw_trials",
    "energy_against_accuracy",
    "energy_by_part",
    "layer_points",
    "layer_roofline",
    "machine_roofline",
    "notable",
    "on_front",
    "operations_a_joule",
    "pareto_front",
    "same_line",
    "style_of",
    "to_svg",
    "which_machine",
]
