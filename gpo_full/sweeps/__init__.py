"""Grids of losses, betas and seeds.

grid        the runs of a sweep, and the table of their results
jobs        a run as a job that is started again if it is killed
executors   where jobs run: processes of this machine, or a Ray cluster
"""
