//! Bytes of a file by position. Whatever a file claims, nothing is read beyond its end, and nothing is reserved that it
//! could not hold.

use std::{fs::File, os::unix::fs::FileExt};

/// What is wrong with a file, in words that follow its name.
pub type Fault = String;

/// A recording: a file, or what a pipe or a packed file held.
pub enum Bytes {
    /// A file and its length.
    File(File, u64),
    /// All of it.
    Memory(Vec<u8>),
}

impl Bytes {
    /// How many there are.
    pub fn length(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `n` bytes from `at` on.
    pub fn read(&self, at: u64, n: u64) -> Result<Vec<u8>, Fault> {
        let end = at.checked_add(n).filter(|end| *end <= self.length());
        let Some(end) = end else {
            return Err(format!("ends early: {n} bytes at {at} are beyond its {}", self.length()));
        };
        match self {
            Self::File(file, _) => {
                let mut out = vec![0; n as usize];
                file.read_exact_at(&mut out, at).map_err(|e| e.to_string())?;
                Ok(out)
            }
            Self::Memory(bytes) => Ok(bytes[at as usize..end as usize].to_vec()),
        }
    }
}

/// Little-endian fields, one after the other.
pub trait Take {
    /// The next `n` bytes.
    fn take(&mut self, n: u64) -> Result<Vec<u8>, Fault>;

    /// An unsigned number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A text that ends in a zero byte; longer ones than `most` are none.
    fn text(&mut self, most: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        loop {
            match self.take(1)?[0] {
                0 => return Ok(out),
                byte if out.len() < most => out.push(byte),
                _ => return Err(format!("a name is longer than {most} bytes")),
            }
        }
    }

    /// Bytes behind a size of `N` bytes.
    fn sized<const N: usize>(&mut self) -> Result<Vec<u8>, Fault> {
        let n = self.number::<N>()?;
        self.take(n)
    }
}

/// A place in a recording.
pub struct At<'b> {
    /// The recording.
    pub bytes: &'b Bytes,
    /// Where in it.
    pub at: u64,
}

impl Take for At<'_> {
    fn take(&mut self, n: u64) -> Result<Vec<u8>, Fault> {
        let out = self.bytes.read(self.at, n)?;
        self.at += n;
        Ok(out)
    }
}

impl Take for &[u8] {
    fn take(&mut self, n: u64) -> Result<Vec<u8>, Fault> {
        let Some((out, rest)) = usize::try_from(n).ok().and_then(|n| self.split_at_checked(n)) else {
            return Err(format!("a section ends early: {n} bytes are needed and {} are left", self.len()));
        };
        *self = rest;
        Ok(out.to_vec())
    }
}
