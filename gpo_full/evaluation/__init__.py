"""A policy judged on samples: KL to its reference, win rate against it, offline regulariser.

tasks                          prompts from a file, with what their answers are judged against
prompts, sampling, cache       prompts read once, responses sampled from a key-value cache
golden_reward, reward_model    what judges a response
kl                             the estimators of KL(pi || pi_ref)
compare                        policy and reference on the same prompts: one score for each prompt
scores                         the scores' summary, their file, and two policies' compared
"""
