"""Load a vision-language model, capture its residual stream, run an extraction."""
