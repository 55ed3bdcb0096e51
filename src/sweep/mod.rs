//! Many (configuration, seed) pairs: what identifies a point ([`identity`]), how threads share the work ([`pool`]),
//! and what one point computes ([`point`]).

pub mod identity;
pub mod point;
pub mod pool;
