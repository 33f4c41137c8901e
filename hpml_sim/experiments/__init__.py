"""What stands behind `compare`, `sweep`, `search`, `run` and `dry_run`, from the settings to the rows.

    search_space.py    options to vary and their values
    target_list.py     machines by label
    config.py          the settings: one set of classes for Python, TOML and the command line
    config_files.py    settings to and from a TOML file
    plan.py            what decides the rows of a run, and its hash; a point is one machine with its options
    points.py          the points of a sweep
    chip_integers.py   a neuromorphic row in the integers of its machine
    pipeline.py        the work behind a row: train, convert, fine-tune; accuracy, estimate, measurement
    checks.py          what is refused before anything is computed
    run_folder.py      the folder of a run: lock, log, rows, trained networks
    execution.py       where rows are computed: in this process, in several, or on a Dask cluster
    ranking.py         targets in order of a figure
    result.py          Comparison, and how one is loaded again
    search_result.py   SearchResult
    trials.py          the trials of a search
    tracking.py        a finished run, logged to MLflow
    preview.py         what a run would do and for how long
    experiment.py      Experiment: one run from its settings to its rows
    comparison.py, sweeping.py, searching.py, running.py    the calls, thin on top of it

Each file imports only those above it. Only the process that started the run writes rows; workers return them.
"""
