"""The command line: one file for each noun; nothing heavy is imported before a command runs."""
