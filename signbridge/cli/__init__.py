"""The command line: typed commands, the parser, one-sentence usage errors."""
