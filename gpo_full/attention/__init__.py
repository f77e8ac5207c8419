"""Attention over rows that hold several responses to one prompt.

prompt_blocks    pairs grouped by prompt, each prompt and each distinct response once
mask             which token sees which: a mask tensor, and attention computed block by block without building it
on_cpu, on_cuda  exact attention by large matrix products on a CPU, by a variable-length kernel on CUDA
"""
