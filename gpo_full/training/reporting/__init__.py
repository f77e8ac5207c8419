"""What a run tells of itself.

metrics, length_bias       exact means over pairs; accuracy beside what length alone would score
run_folder                 the lines of metrics.jsonl, events.jsonl and samples.jsonl
progress_lines, trackers   a line on stderr each second; TensorBoard, Weights & Biases and others
model_cards                the README of a trained model
"""
