"""Recording on a live machine: tracefs, a run of it, the view that goes on."""
