"""The commands: one file each, which parses arguments and prints."""
