"""The command line: one file per command. Each parses options, calls one function, prints."""
