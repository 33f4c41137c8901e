"""Makes `.venv` with everything that `make demo` and `make test` need: `PYTHONPATH=tools python3 -m setup_env`.

Standard library only; any number of runs, each going on from where the last one stopped; nothing needs root. The order
matters: torch first, then everything else under a constraint that pins this torch (nothing may pull another), then
aihwkit, whose compiled tiles must fit the torch that is installed.

    __main__      arguments, one set-up at a time, the five steps
    stamp         may the last set-up be trusted?
    interpreter   step 1: a Python, and an environment made with it
    torch         step 2: which build of torch
    packages      step 3: everything else
    aihwkit       step 4: compiled tiles by the shortest way that works
    real_networks step 5: weights of the pretrained networks
    tile_build    the longest of these ways: from source
    environment   commands in the environment, with log, progress and errors
    progress      what a line of pip's or ninja's output means
    screen        what is shown
"""
