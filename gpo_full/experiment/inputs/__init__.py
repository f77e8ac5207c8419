"""What the experiment works on.

scales                             every number that defines a scale
policy, docstrings, preparation    the policy and the texts, made once and kept
workload                           policy, tokenizer, tasks and reward of a scale, with a hash of them all
"""
