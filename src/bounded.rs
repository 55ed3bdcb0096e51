//! Packed data from anywhere: what a small file may become is bounded, by a ratio and by a size.
//!
//! A text of zeros packs 1000 times (gzip) to 10,000 times and more (xz, Zstandard); recordings and configurations pack
//! 5 to 100 times. What unpacks beyond [`RATIO`] is refused once it is larger than [`ALWAYS`], so that a file of a
//! megabyte neither fills the memory nor keeps a reader busy for hours.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// So many times its size packed data may become.
pub const RATIO: u64 = 2000;
/// So many bytes it may become whatever the ratio.
pub const ALWAYS: u64 = 64 << 20;
/// The most that is unpacked into memory as a whole.
pub const WHOLE: u64 = 4 << 30;

/// Counts what a decoder takes.
pub struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A decoder whose output is bounded.
pub struct Bounded<D> {
    decoder: D,
    taken: Arc<AtomicU64>,
    given: u64,
    ratio: u64,
    most: u64,
}

/// The decoder that `make` makes of `packed`, bounded to `ratio` times what it takes and to `most` bytes.
pub fn bounded<R: Read, D: Read>(
    packed: R,
    ratio: u64,
    most: u64,
    make: impl FnOnce(Counted<R>) -> io::Result<D>,
) -> io::Result<Bounded<D>> {
    let taken = Arc::new(AtomicU64::new(0));
    let decoder = make(Counted { inner: packed, taken: Arc::clone(&taken) })?;
    Ok(Bounded { decoder, taken, given: 0, ratio, most })
}

impl<D: Read> Read for Bounded<D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(into)?;
        self.given += n as u64;
        let taken = self.taken.load(Ordering::Relaxed);
        if self.given > self.most {
            return Err(io::Error::other(format!("unpacks to more than {} bytes", self.most)));
        }
        if self.given > ALWAYS.max(taken.saturating_mul(self.ratio)) {
            return Err(io::Error::other(format!("unpacks to more than {} times its size", self.ratio)));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(len: usize) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&vec![b'x'; len]).unwrap();
        gz.finish().unwrap()
    }

    fn unpack(packed: &[u8], most: u64) -> io::Result<usize> {
        let mut out = Vec::new();
        let gz = |raw| Ok(flate2::read::MultiGzDecoder::new(raw));
        bounded(packed, RATIO, most, gz)?.read_to_end(&mut out)
    }

    #[test]
    fn the_size_is_a_bound_that_may_be_reached() {
        let packed = gzip(1000);
        assert_eq!(unpack(&packed, 1000).unwrap(), 1000);
        let refused = unpack(&packed, 999).unwrap_err().to_string();
        assert_eq!(refused, "unpacks to more than 999 bytes");
    }

    #[test]
    fn a_ratio_is_refused_only_beyond_what_is_always_allowed() {
        let bomb = |len: usize| zstd::encode_all(&vec![0; len][..], 19).unwrap();
        let unpack = |packed: &[u8]| {
            let mut out = io::sink();
            io::copy(&mut bounded(packed, RATIO, u64::MAX, zstd::stream::read::Decoder::new)?, &mut out)
        };
        let (small, large) = (bomb(ALWAYS as usize), bomb(ALWAYS as usize + 1));
        assert!(large.len() as u64 * RATIO < ALWAYS, "else this is no bomb");
        assert_eq!(unpack(&small).unwrap(), ALWAYS);
        assert_eq!(unpack(&large).unwrap_err().to_string(), "unpacks to more than 2000 times its size");
    }
}
