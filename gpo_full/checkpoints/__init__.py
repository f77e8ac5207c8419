"""Checkpoints that are whole or absent.

atomic     a checkpoint folder, written under a temporary name, checksummed, renamed; verified when read
sharded    models and optimizers whose tensors are sharded over ranks
state      optimizer, scheduler and random generators as JSON and tensors
"""
