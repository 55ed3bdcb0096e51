//! Recordings of real kernels: importers, one event model, causes of interference.
