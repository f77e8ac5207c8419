"""The benchmark of the engine against TRL and an ideal: `python -m gpo_full.bench.run`.

run           the cells, the ideal, the table
contenders    the ways to take one training step
device        how time and memory are measured
plots         the figure
"""
