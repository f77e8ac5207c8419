"""From pairs to the log-probabilities of their responses.

packing              pairs to rows of tokens, with the source and target of each prediction
model_plan           how a given model can be run: shared prefixes, which layout, which head
lm_head              log-probabilities in chunks without keeping logits, and their gradient
partial_last_layer   the last layer at source positions only
log_probabilities    the forward pass: log pi(y | x) of each response, in nats
"""
