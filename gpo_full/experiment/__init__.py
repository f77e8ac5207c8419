"""The controlled experiment: one policy, one set of pairs, several losses and betas.

inputs/                        the scale, the policy, the texts, the reward
grid                           the runs of a scale: losses, betas, seeds
sft, labels, answers, pilot    what the stages before the runs compute
trained_run, frozen_layers     what a run computes; layers computed once for all runs
stages, protocol               a cached stage and its key; the stages in order
run, pool, processes           everything in order, several runs at a time, each in a process
forecast                       what a scale will cost on this machine
result, predictions, plots     what was found (and the published result), what was predicted, figures
"""
