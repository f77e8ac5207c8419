"""The controlled experiment: one policy, one set of pairs, several losses and betas.

inputs/                            the scale, the policy, the texts, the reward
grid, stages, protocol             which runs; cached stages; what each stage computes
sft, labels, frozen_layers         fine-tuning, labelled pairs, layers computed once for all runs
run, pool, forecast                everything in order, several runs at a time, and what it will cost
result, predictions, plots         what came out, what was foretold, figures
published                          the result at scale full
"""
