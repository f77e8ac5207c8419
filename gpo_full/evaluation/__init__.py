"""What became of a policy: KL, win rate and regulariser.

tasks, prompts, sampling, cache    prompts from a file, read once, continued with a key-value cache
golden_reward, reward_model        what judges an answer
scores, compare                    prompt by prompt, then a policy against its reference: KL in nats, win rate
"""
