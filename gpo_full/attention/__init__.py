"""Attention over rows that hold several responses to one prompt.

blocks           which prompts and responses are laid down once
mask             which token sees which, as a tensor that knows its blocks
on_cpu, on_cuda  the attention itself, as large products or by a variable-length kernel
"""
