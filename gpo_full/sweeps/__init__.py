"""Grids of losses, betas and seeds.

grid        which runs there are, and the table of what came out
jobs        a run as a job that survives being killed
executors   where jobs run: processes of this machine, or a Ray cluster
"""
