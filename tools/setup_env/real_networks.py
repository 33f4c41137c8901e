"""Step 5: the weights of the pretrained networks, which tests and examples run, in the user's cache."""

from __future__ import annotations

from .environment import Environment, SetupError


def fetch_networks(environment: Environment) -> None:
    """What is not there yet; without it everything but these networks works, and their tests say what is missing."""
    environment.screen.start("networks")
    # -P: the environment's own hpml_sim, whatever lies in the current folder
    command = [str(environment.python), "-P", "-m", "hpml_sim.cli", "networks", "get", "all"]
    try:
        environment.run(command, log="5-networks", quiet=True)
    except SetupError as error:
        environment.screen.note(f"    {error}\n    pretrained networks are missing; later: hpml-sim networks get all")
        environment.screen.done("not fetched")
        return
    environment.screen.done("pretrained networks are here")
