//! Many (configuration, seed) pairs: what identifies a point ([`identity`]), and how threads share the work ([`pool`]).

pub mod identity;
pub mod pool;
