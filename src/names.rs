//! Suggestions for names that nobody knows.

/// The name in `known` that is nearest to `name`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 2.max(name.len() / 3) || (name.len() >= 3 && candidate.contains(name))
        })
        .min_by_key(|(distance, candidate)| (!candidate.contains(name), *distance))
        .map(|(_, candidate)| candidate)
}

/// The end of an error about `name`: a question with the nearest known one, or nothing.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("colesce-v7", ["ipi", "coalesce-v7"]), Some("coalesce-v7"));
        assert_eq!(
            nearest("broadwell", ["skylake-sp", "broadwell-ep-e5-2699v4"]),
            Some("broadwell-ep-e5-2699v4")
        );
        assert_eq!(nearest("quarantine", ["ipi", "rar"]), None);
    }
}
