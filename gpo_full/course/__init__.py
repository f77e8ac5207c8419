"""What the lessons import, and how they are executed.

exercises    exercises that check themselves
values       numbers that a lesson publishes
lessons      where the lessons of a checkout are
execution    a lesson executed from top to bottom, once
keys         what an executed lesson depends on
"""
