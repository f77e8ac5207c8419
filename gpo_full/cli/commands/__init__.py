"""The subcommands of `gpo`: one module each, imported only when it runs."""
