//! A digest of the sources that decide what a simulation counts, as `TLBCORE_ENGINE`: sweeps that were computed by
//! another engine are not taken for this one's.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// What a simulation's figures follow from; importers, the checker and Python are not among it.
const ENGINE: [&str; 4] = ["src/hw", "src/kernel", "src/sim", "src/sweep"];

fn main() -> std::io::Result<()> {
    let mut files = Vec::new();
    for folder in ENGINE {
        println!("cargo::rerun-if-changed={folder}");
        collect(Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.to_string_lossy().as_bytes());
        hash.update(fs::read(file)?);
    }
    let digest = u128::from_be_bytes(hash.finalize()[..16].try_into().expect("sixteen of 32 bytes"));
    println!("cargo::rustc-env=TLBCORE_ENGINE={digest:032x}");
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
