"""Compression: fewer weights, fewer bits. What comes out are ordinary networks, which every target takes.

- `pruning.py`: `prune`, and shares for pruning in steps
- `zero_patterns.py`: single weights, and two of each four
- `structures.py`: channels, heads and blocks
- `crossbar_patterns.py`, `partial_layer.py`: whole rows, columns and tiles of crossbars
- `quantizing.py`: `quantize`
- `rounding.py`: numbers of few bits; `gptq.py`, `awq.py`: rounding that looks at data
- `kept_weights.py`: training that keeps zeros and grids
- `matrices.py`: the weights of a network as matrices; `calibration_data.py`: what they are multiplied with

What is noted on layers lies in `hpml_sim/conversion/compression.py`.
"""

from hpml_sim.compress.kept_weights import KeptWeights as KeptWeights
from hpml_sim.compress.pruning import gradual_shares as gradual_shares
from hpml_sim.compress.pruning import prune as prune
from hpml_sim.compress.quantizing import quantize as quantize
