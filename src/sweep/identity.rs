//! What identifies a point, and which seed it gets.
//!
//! A point is a base configuration with some parameters set. Its key is a hash of just that, so the same point has
//! the same key in a widened grid, in another order and on another machine, and nothing is computed twice. Its
//! seed is drawn from the sweep's seed and the parameters that are not *paired*: policies of one point see the
//! same workload.

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
    crate::order::by(&mut sorted, |a, b| a.name.cmp(&b.name));
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
}
