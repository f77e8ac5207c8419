"""Training with any f: what `gpo train` and `GPOTrainer` do.

config, dry_run                     the settings, each checked; what a run needs of each device
model, adapters, distribution       the model made ready, alone or on several processes
rows, sampler, trainer              the loop: pairs to batches, a step of the optimizer, logging, saving
step_guard, interruption            steps that must not be applied; signals
saving, resumption                  one checkpoint of all ranks; going on from it
live_evaluation                     samples while the policy trains
reporting/                          what only tells of a run
"""
