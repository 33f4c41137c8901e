"""Measured records of other people's machines, read from CSV files of known columns, beside our estimates.

record.py        a measured figure and ours; a row that was skipped
reading.py       rows and figures of a file, checked
machines.py      which card a name stands for
products.py      gpu_products.csv
images.py        image_networks.csv
serving.py       llm_serving.csv
collectives.py   gpu_collectives.csv
summary.py       what is left over: ratios, errors and shares within the bands, for each file and machine
"""
