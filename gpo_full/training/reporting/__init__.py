"""The metrics of a run, and what is written about it.

metrics, length_bias   exact means over pairs; accuracy beside what length alone would score
run_folder             the lines of metrics.jsonl, events.jsonl and samples.jsonl
trackers               TensorBoard, Weights & Biases and others
model_cards            the README of a trained model
"""
