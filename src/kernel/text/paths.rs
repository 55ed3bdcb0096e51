//! Paths that a text names: of the file that it is based on.

/// Is a `based on` that of a file? Names of policies have none of these.
pub(super) fn is_file(base: &str) -> bool {
    base.contains(['/', '.'])
}

/// Refuses what is no path from one file to another.
pub(super) fn refuse(path: &str) -> Result<(), String> {
    if path.ends_with(".policy") && !path.starts_with('/') && !path.contains(['\\', ':']) {
        return Ok(());
    }
    Err(format!(
        "a file that a policy is based on ends in `.policy`, and is named by its path from this one with `/`: got \"{path}\""
    ))
}
