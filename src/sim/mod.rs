//! The timed machine: the same programs with clocks, costs and workloads.
