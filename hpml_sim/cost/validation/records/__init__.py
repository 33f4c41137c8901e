"""Measured records of other people's machines, read from CSV files of known columns, beside our estimates.

record.py        a measured figure and ours; a row that was skipped
serving.py       llm_serving.csv
collectives.py   gpu_collectives.csv
"""
