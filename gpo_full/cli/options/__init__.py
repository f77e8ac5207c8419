"""Options that several subcommands have.

parameters   `--param NAME=VALUE`
messages     the library's messages, with its arguments as options
export       `--csv`, `--latex` and other files beside the answer
"""
