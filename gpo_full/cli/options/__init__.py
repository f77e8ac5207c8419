"""Options that several subcommands have.

parameters   `--param NAME=VALUE`
training     those of `gpo train`, and the GPOConfig that they make
export       `--csv`, `--latex` and other files beside the answer
"""
