"""The timed machine from Python: one run, comparisons of policies, what a repair costs."""
