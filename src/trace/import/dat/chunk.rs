//! Packed data: sections as a whole, ring buffers in chunks. A chunk is unpacked when its turn comes.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    buffer::{Buffer, INSTEAD, Part},
    bytes::{Bytes, Fault},
};

/// trace-cmd packs about ten pages into a chunk; this is far above.
const MOST: u64 = 16 << 20;
/// Unpacked chunks of all CPUs together: a small file must not become all memory.
const MOST_HELD: u64 = 1 << 30;
/// Event formats and symbols of a large kernel have some ten megabytes.
const MOST_SECTION: u64 = 256 << 20;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Zstandard.
    Zstd,
    /// zlib, RFC 1950.
    Zlib,
}

impl Packing {
    /// By trace-cmd's name for it.
    pub fn named(name: &[u8]) -> Result<Option<Self>, Fault> {
        match name {
            b"zstd" => Ok(Some(Self::Zstd)),
            b"zlib" => Ok(Some(Self::Zlib)),
            b"none" | b"" => Ok(None),
            other => Err(format!(
                "is packed with {:?}, which is neither zstd nor zlib{INSTEAD}",
                String::from_utf8_lossy(other)
            )),
        }
    }

    /// Unpacks into `len` bytes; nothing is reserved that the data does not fill.
    fn unpack(self, data: &[u8], len: u64) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        let read = match self {
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(data)
                .and_then(|decoder| decoder.single_frame().take(len).read_to_end(&mut out)),
            Self::Zlib => flate2::bufread::ZlibDecoder::new(data).take(len).read_to_end(&mut out),
        };
        match read {
            Ok(n) if n as u64 == len => Ok(out),
            Ok(n) => Err(format!("packed data is damaged: {n} bytes instead of {len}")),
            Err(e) => Err(format!("packed data is damaged: {e}")),
        }
    }
}

fn word(bytes: &[u8]) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?)))
}

/// A packed section: its size packed, its size unpacked, the data.
pub fn unpack_section(data: &[u8], packing: Option<Packing>) -> Result<Vec<u8>, Fault> {
    let packing = packing.ok_or("has a packed section, and does not say how")?;
    let (Some(packed), Some(len)) = (word(data), data.get(4..).and_then(word)) else {
        return Err("has a packed section without a size".into());
    };
    let inside = data.get(8..).and_then(|rest| rest.get(..packed as usize));
    match inside {
        Some(inside) if len <= MOST_SECTION => packing.unpack(inside, len),
        _ => Err("has a packed section that ends early".into()),
    }
}

/// The pages of one CPU, in order.
pub struct Pages {
    bytes: Arc<Bytes>,
    at: u64,
    end: u64,
    page: usize,
    packing: Option<Packing>,
    chunk: Vec<u8>,
    used: usize,
    left: u64,
    begun: bool,
    /// Bytes that all CPUs of the recording hold unpacked.
    held: Arc<AtomicU64>,
}

impl Pages {
    /// Of one part of a buffer.
    pub fn new(
        bytes: &Arc<Bytes>,
        buffer: &Buffer,
        part: &Part,
        packing: Option<Packing>,
        held: &Arc<AtomicU64>,
    ) -> Self {
        Self {
            bytes: Arc::clone(bytes),
            at: part.at,
            end: part.at.saturating_add(part.len),
            page: buffer.page,
            packing: packing.filter(|_| buffer.packed),
            chunk: Vec::new(),
            used: 0,
            left: 0,
            begun: false,
            held: Arc::clone(held),
        }
    }

    /// The next page; empty at the end. The last one may be short.
    pub fn next(&mut self) -> Result<&[u8], Fault> {
        if self.used == self.chunk.len() && !self.fill()? {
            return Ok(&[]);
        }
        let from = self.used;
        self.used = (from + self.page).min(self.chunk.len());
        Ok(&self.chunk[from..self.used])
    }

    fn fill(&mut self) -> Result<bool, Fault> {
        self.used = 0;
        self.held.fetch_sub(self.chunk.len() as u64, Ordering::Relaxed);
        self.chunk = Vec::new();
        let Some(packing) = self.packing else {
            let n = (self.page as u64 * 16).min(self.end - self.at.min(self.end));
            // A file that was cut: what is there of this CPU is read, then it is said.
            let there = n.min(self.bytes.length().saturating_sub(self.at));
            if n > 0 && there == 0 {
                return Err(format!("ends early: {} bytes of a CPU's data are missing", self.end - self.at));
            }
            self.chunk = self.bytes.read(self.at, there)?;
            self.held.fetch_add(there, Ordering::Relaxed);
            self.at += there;
            return Ok(there > 0);
        };
        if !self.begun && self.at < self.end {
            self.left = self.word()?;
            self.begun = true;
        }
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let (packed, len) = (self.word()?, self.word()?);
        if packed > MOST || len > MOST || len == 0 {
            return Err(format!("has a chunk of {packed} bytes for {len}: at most {MOST} are read"));
        }
        let data = self.bytes.read(self.at, packed)?;
        self.at += packed;
        if self.held.load(Ordering::Relaxed) + len > MOST_HELD {
            return Err(format!("would unpack to more than {MOST_HELD} bytes at once"));
        }
        self.chunk = packing.unpack(&data, len)?;
        self.held.fetch_add(len, Ordering::Relaxed);
        Ok(true)
    }

    fn word(&mut self) -> Result<u64, Fault> {
        let bytes = self.bytes.read(self.at, 4)?;
        self.at += 4;
        Ok(word(&bytes).expect("four bytes were read"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    type Pack = fn(&[u8]) -> Vec<u8>;

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(data).expect("memory");
        out.finish().expect("memory")
    }

    fn pages(file: Vec<u8>, packing: Option<Packing>) -> Result<Vec<u8>, Fault> {
        let part = Part { cpu: 0, at: 3, len: file.len() as u64 - 3 };
        let buffer = Buffer { page: 64, packed: packing.is_some(), ..Buffer::default() };
        let mut pages = Pages::new(&Arc::new(Bytes::Memory(file)), &buffer, &part, packing, &Arc::default());
        let mut out = Vec::new();
        loop {
            match pages.next()? {
                [] => return Ok(out),
                page => out.extend_from_slice(page),
            }
        }
    }

    #[test]
    fn chunks_of_either_packing_give_the_pages() {
        let data: Vec<u8> = (0..64 * 7).map(|i: u32| (i * 7 % 251) as u8).collect();
        let mut plain = b"abc".to_vec();
        plain.extend_from_slice(&data);
        assert_eq!(pages(plain, None).expect("reads"), data);
        let zstd: Pack = |data| zstd::encode_all(data, 1).expect("memory");
        for (packing, pack) in [(Packing::Zlib, zlib as Pack), (Packing::Zstd, zstd)] {
            let mut file = b"abc\x04\0\0\0".to_vec();
            for chunk in data.chunks(128) {
                let packed = pack(chunk);
                file.extend_from_slice(&(packed.len() as u32).to_le_bytes());
                file.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
                file.extend_from_slice(&packed);
            }
            assert_eq!(pages(file.clone(), Some(packing)).expect("reads"), data);
            // A length that lies, and data that ends early.
            let mut lies = file.clone();
            lies[11] = 255;
            assert!(pages(lies, Some(packing)).expect_err("refused").contains("packed data is damaged"));
            file.truncate(file.len() - 4);
            assert!(pages(file, Some(packing)).expect_err("refused").contains("beyond"));
        }
    }

    #[test]
    fn a_packed_section_says_its_sizes() {
        let packed = zlib(b"formats");
        let mut section = (packed.len() as u32).to_le_bytes().to_vec();
        section.extend_from_slice(&7u32.to_le_bytes());
        section.extend_from_slice(&packed);
        assert_eq!(unpack_section(&section, Some(Packing::Zlib)).expect("reads"), b"formats");
        assert!(unpack_section(&section[..9], Some(Packing::Zlib)).is_err());
        assert!(unpack_section(&section, None).is_err());
        assert!(Packing::named(b"lz4").expect_err("refused").contains("neither zstd nor zlib"));
    }
}
