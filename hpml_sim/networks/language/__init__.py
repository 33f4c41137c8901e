"""Language models and other transformers that read tokens, by their sizes: no weights.

shape.py         `TransformerShape`: the sizes, and what follows from them (parameters, cache)
known.py         the published ones by name
config_file.py   the sizes in a Hugging Face `config.json`
modules.py       the module of a shape, to be counted on the meta device (this one needs torch)
"""

from hpml_sim.networks.language.config_file import read_config as read_config
from hpml_sim.networks.language.known import LANGUAGE_MODELS as LANGUAGE_MODELS
from hpml_sim.networks.language.known import language_model as language_model
from hpml_sim.networks.language.shape import Experts as Experts
from hpml_sim.networks.language.shape import Latent as Latent
from hpml_sim.networks.language.shape import Stored as Stored
from hpml_sim.networks.language.shape import TransformerShape as TransformerShape
