"""From pairs to the log-probabilities of their responses.

packing             pairs to rows of tokens
model_plan          what a given model supports: shared prefixes, which layout, which attention
head, last_layer    log-probabilities without logits, and the last layer at the positions that are read
log_probabilities   the forward pass: log pi(y | x) of each response, in nats
"""
