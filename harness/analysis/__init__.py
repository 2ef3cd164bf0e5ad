"""What a compression and a recovery do inside of a model, and what a recovery costs in time: things that no task asks, that
need the model and that the gate does not judge. What comes are records of ``core``; the report draws them."""
