"""The results folder: its files, written and read in one place."""
