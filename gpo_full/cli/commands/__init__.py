"""The subcommands of `gpo`: each file declares its options in `add_arguments` and works in `run`."""
