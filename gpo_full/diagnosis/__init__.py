"""What the theory says about a training run.

names      the keys of other trainers' logs, and their values as numbers
method     which method wrote a log, where that is not of an f(beta rho)
log        the metrics of a run: our metrics.jsonl, or the log of another trainer
view       what the rules use of it: columns in nats, facts of the loss, whether anything moves
scale      whether the logged loss is a multiple of f
log_rules  rules on the log itself, which need no loss
rules      one function for each rule of the theory, each with its number and its limits; all of them applied
plots      the figure of a run
"""
