"""What the lessons import, and how they are executed.

exercises    exercises that check themselves
values       numbers that a lesson publishes
lessons      the lessons of a checkout, executed from top to bottom
"""
