"""What functions and commands take where nothing is said. No imports: command lines read it before anything else."""

# The machine of the series' measurements (HARDWARE): `simulate`, `compare`, `sweep`, `break_even`, `repair`.
MACHINE = "broadwell-ep-e5-2699v4"
