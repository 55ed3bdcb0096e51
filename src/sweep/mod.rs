//! Many (configuration, seed) pairs: what identifies a point ([`identity`]) and what one computes ([`point`]).

pub mod identity;
pub mod point;
