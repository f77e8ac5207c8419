"""The names in a training run's folder: its files, and the words in them that one part writes and another reads."""

__all__ = ["BASE_FILE", "EVENTS_FILE", "LOGS", "METER", "METRICS_FILE", "NON_FINITE_FILE", "RESULT_FILE", "RESUMED",
           "RUN_FILE", "SAMPLES_FILE", "STATE_FILE"]  # fmt: skip

RUN_FILE = "run.json"  # the settings
BASE_FILE = "base_model.json"  # a hash of the base model's files, beside an adapter
METRICS_FILE = "metrics.jsonl"  # a line per logging interval
EVENTS_FILE = "events.jsonl"  # a line per step that was not applied, resume with changes, and distributed start
SAMPLES_FILE = "samples.jsonl"  # a line per sampling of the policy
NON_FINITE_FILE = "non_finite_batch.json"  # the batch that ended the run
RESULT_FILE = "result.json"  # what `gpo train --json` prints
STATE_FILE = "trainer_state.json"  # transformers' name for the Trainer's state, in a checkpoint
# Those whose every line is an object that holds its step.
LOGS = (METRICS_FILE, EVENTS_FILE, SAMPLES_FILE)
# The event of a run that was resumed with other settings.
RESUMED = "resumed with changes"
# Where a checkpoint keeps the sums of its metrics, among the states of callbacks; it tells our runs from TRL's.
METER = "GPOMeter"
