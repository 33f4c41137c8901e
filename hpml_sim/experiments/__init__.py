"""What stands behind `compare`, `sweep` and `search`, from what was asked to the rows.

    settings.py    what can be asked: one set of classes for Python, TOML and the command line
    runfile.py     settings to and from a TOML file
    plan.py        what was asked, checked and hashed before anything runs; a point is one machine with its options
    folder.py      the folder of a run: lock, log, trained networks, files that stand whole or not at all
    passes.py      the work behind a row: train, convert, tune; accuracy, estimate, measurement
    execution.py   where it is done: this process, several, or a Dask cluster; what died is done again
    tracking.py    a finished run, logged to MLflow

Each file imports only those above it. Only the process that was asked writes rows; workers return them.
"""
