"""The Lightning predict loop that streams labelled images through a model into a store."""
