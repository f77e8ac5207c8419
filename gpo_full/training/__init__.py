"""Training with any f: what `gpo train` and `GPOTrainer` do.

start/                               before the first step: arguments, the model, what is tried; the dry run
rows, references                     pairs in batches; the reference's log-probabilities
loss                                 the loss of a batch, a function of log-probabilities
steps                                which optimizer steps are applied, and their metrics
trainer                              GPOTrainer, which hands what transformers' Trainer asks over to the others
callbacks, live_evaluation           between steps: signals, logs, progress; samples of the policy
saving, resumption                   one checkpoint of all ranks; continuing it
finished                             the folder of a finished run: model, card, proofs, result
reporting/                           metrics, and what is written about a run
"""

__all__ = ["check_versions"]

from gpo_full.versions import check_versions

# Before anything of transformers is imported, which a release outside the range may lack.
check_versions()
