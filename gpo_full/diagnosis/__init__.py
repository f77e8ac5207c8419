"""What the theory says of a run.

log      what a run wrote: our metrics.jsonl or TRL's trainer_state.json
rules    one function a rule, each with its number and its limits
plots    the figure of a run
"""
