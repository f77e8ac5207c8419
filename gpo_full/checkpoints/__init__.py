"""Checkpoints that are whole or absent.

atomic     written beside, checksummed, renamed; verified when read
sharded    states whose tensors lie in pieces on several ranks
state      optimizer, schedule and random generators as JSON and tensors
"""
