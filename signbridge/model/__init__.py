"""The vision-language model: load, quantise, prompt, where its parts are, forward pass, answers."""
