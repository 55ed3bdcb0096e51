//! Where threads that compute come from. Two forms, since work comes in two: numbered jobs that know nothing of each other
//! (runs, points of a sweep, chunks of a recording), and steps of microseconds that all take together (a search).

mod crew;
mod jobs;

pub use crew::{Crew, available, with_crew};
pub use jobs::{Stop, run};
