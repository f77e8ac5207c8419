"""What the theory says about a training run.

log      the metrics of a run: our metrics.jsonl or TRL's trainer_state.json
rules    one function for each rule, each with its number and its limits
plots    the figure of a run
"""
