//! What Linux does: configuration, policies as programs, the step interpreter.
