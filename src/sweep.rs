//! Many (configuration, seed) pairs: what identifies a point, which seed it gets, and how threads share the work.
//!
//! A point is a base configuration with some parameters set. Its key is a hash of just that, so the same point has
//! the same key in a widened grid, in another order and on another machine, and nothing is computed twice. Its
//! seed is drawn from the sweep's seed and the parameters that are not *paired*: policies of one point see the
//! same workload.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// One parameter's values, a value per point.
#[derive(Clone, Debug)]
pub enum Values {
    /// Numbers; integers too.
    Numbers(Vec<f64>),
    /// Names: policies, machines, scenarios.
    Names(Vec<String>),
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Column {
    /// The parameter's name.
    pub name: String,
    /// Whether its values share seeds, as policies do.
    pub paired: bool,
    /// A value per point.
    pub values: Values,
}

/// What identifies one point, and its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// First 128 bits of the hash, high half first.
    pub key: [u64; 2],
    /// The simulation's seed; 63 bits, so that every language's integers hold it.
    pub seed: u64,
}

/// Keys and seeds of points: rows of `columns` with their replication number.
///
/// `base` is the text of everything the columns do not set. Columns are hashed in the order of their names.
pub fn identify(base: &str, sweep_seed: u64, columns: &[Column], replications: &[u32]) -> Vec<Identity> {
    let mut sorted: Vec<&Column> = columns.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut start = Sha256::new();
    field(&mut start, b"base", base.as_bytes());
    field(&mut start, b"seed", &sweep_seed.to_le_bytes());
    let mut identities = Vec::with_capacity(replications.len());
    for (row, replication) in replications.iter().enumerate() {
        let mut key = start.clone();
        field(&mut key, b"replication", &replication.to_le_bytes());
        let mut seed = key.clone();
        for column in &sorted {
            value(&mut key, column, row);
            if !column.paired {
                value(&mut seed, column, row);
            }
        }
        let (key, seed) = (key.finalize(), seed.finalize());
        let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        identities.push(Identity { key: [word(&key[..8]), word(&key[8..16])], seed: word(&seed[..8]) >> 1 });
    }
    identities
}

/// Length before content, so that no two lists of fields give the same bytes.
fn field(hash: &mut Sha256, name: &[u8], content: &[u8]) {
    for part in [name, content] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

fn value(hash: &mut Sha256, column: &Column, row: usize) {
    match &column.values {
        // 0.0 and -0.0 are one value; 10 and 10.0 are one anyway.
        Values::Numbers(numbers) => field(hash, column.name.as_bytes(), &(numbers[row] + 0.0).to_le_bytes()),
        Values::Names(names) => field(hash, column.name.as_bytes(), names[row].as_bytes()),
    }
}

/// Time between two calls of `keep_going`.
const TICK: Duration = Duration::from_millis(50);

/// Run `job(0..count)` on `threads` threads and return the results in order; `None` where it was not reached
/// because `keep_going` said no. A job that panics is an `Err` with the panic's message.
///
/// The calling thread only waits and asks `keep_going` every 50 ms.
pub fn run<T: Send>(
    count: usize,
    threads: usize,
    job: impl Fn(usize) -> T + Sync,
    mut keep_going: impl FnMut() -> bool,
) -> Vec<Option<Result<T, String>>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let mut results: Vec<Option<Result<T, String>>> = Vec::new();
    results.resize_with(count, || None);
    std::thread::scope(|scope| {
        let (done, results_of_jobs) = mpsc::channel();
        for _ in 0..threads.clamp(1, count.max(1)) {
            let (done, next, stop, job) = (done.clone(), &next, &stop, &job);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let result =
                        catch_unwind(AssertUnwindSafe(|| job(index))).map_err(|panic| message(&*panic));
                    if done.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        let mut asked = Instant::now();
        loop {
            match results_of_jobs.recv_timeout(TICK) {
                Ok((index, result)) => results[index] = Some(result),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if asked.elapsed() >= TICK {
                asked = Instant::now();
                if !keep_going() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    });
    results
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn columns(rates: &[f64], policies: &[&str]) -> Vec<Column> {
        vec![
            Column { name: "rate_hz".into(), paired: false, values: Values::Numbers(rates.to_vec()) },
            Column {
                name: "policy".into(),
                paired: true,
                values: Values::Names(policies.iter().map(|p| (*p).into()).collect()),
            },
        ]
    }

    #[test]
    fn a_point_keeps_its_identity_in_any_company_and_order() {
        let alone = identify("base", 1, &columns(&[10.0], &["ipi"]), &[0]);
        let mut others = columns(&[5.0, 10.0], &["ipi", "ipi"]);
        others.reverse();
        assert_eq!(identify("base", 1, &others, &[0, 0])[1], alone[0]);
    }

    #[test]
    fn every_part_of_a_point_is_in_its_key() {
        let points = [
            identify("base", 1, &columns(&[10.0], &["ipi"]), &[0]),
            identify("base", 1, &columns(&[11.0], &["ipi"]), &[0]),
            identify("base", 1, &columns(&[10.0], &["rar"]), &[0]),
            identify("base", 1, &columns(&[10.0], &["ipi"]), &[1]),
            identify("base", 2, &columns(&[10.0], &["ipi"]), &[0]),
            identify("Base", 1, &columns(&[10.0], &["ipi"]), &[0]),
            identify("base", 1, &columns(&[10.0], &["ipi"])[..1], &[0]),
        ];
        let keys: HashSet<[u64; 2]> = points.iter().map(|p| p[0].key).collect();
        assert_eq!(keys.len(), points.len());
    }

    #[test]
    fn policies_of_one_point_share_their_seed_and_replications_do_not() {
        let points = identify("base", 1, &columns(&[10.0; 3], &["ipi", "rar", "ipi"]), &[0, 0, 1]);
        assert_eq!(points[0].seed, points[1].seed);
        assert_ne!(points[0].seed, points[2].seed);
        assert_ne!(points[0].key, points[1].key);
    }

    #[test]
    fn identities_are_stable_across_releases() {
        // A stored result: were it to change, every directory of results would be computed again.
        let point = identify("base", 1, &columns(&[10.0], &["ipi"]), &[0])[0];
        assert_eq!((point.key[0], point.seed), STABLE);
    }

    const STABLE: (u64, u64) = (1_821_224_764_635_875_531, 657_300_420_713_534_526);

    #[test]
    fn results_come_in_order_for_any_number_of_threads() {
        for threads in [1, 2, 8, 1000] {
            let results = run(100, threads, |i| i * i, || true);
            let squares: Vec<usize> = results.into_iter().map(|r| r.unwrap().unwrap()).collect();
            assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(run(0, 2, |i| i, || true).is_empty());
    }

    #[test]
    fn a_panic_is_that_points_error_alone() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let results = run(3, 2, |i| assert!(i != 1, "point {i} is odd"), || true);
        std::panic::set_hook(quiet);
        assert_eq!(results[1], Some(Err("panic: point 1 is odd".into())));
        assert_eq!((&results[0], &results[2]), (&Some(Ok(())), &Some(Ok(()))));
    }

    #[test]
    fn stopping_keeps_what_is_done_and_marks_the_rest() {
        let mut asked = 0;
        let results = run(
            10_000,
            2,
            |_| std::thread::sleep(Duration::from_millis(1)),
            || {
                asked += 1;
                asked < 3
            },
        );
        let done = results.iter().filter(|r| r.is_some()).count();
        assert!((20..2000).contains(&done), "{done}");
    }
}
