"""The command line: one typed dataclass a command."""
