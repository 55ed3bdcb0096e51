//! The bytes of a recording in chunks of whole lines: what follows the last newline waits for the next chunk.
//!
//! Memory is one chunk, or one line of [`LONGEST_LINE`]: of a longer one just enough is kept to say that it is too long.

use std::io::{self, Read};

use super::LONGEST_LINE;

/// Bytes of a recording that tell text from other data.
pub(super) const LOOKED_AT: usize = 4096;

/// Where chunks come from.
pub(super) struct Chunks {
    source: Box<dyn Read + Send>,
    /// What follows the last newline.
    rest: Vec<u8>,
    /// The end of a line that is too long is not wanted.
    skipping: bool,
    /// There is no more.
    pub done: bool,
    /// Bytes read.
    pub bytes: u64,
}

/// One chunk: whole lines, and at the end of the recording perhaps a line without a newline.
#[derive(Default)]
pub(super) struct Chunk {
    buffer: Vec<u8>,
    whole: usize,
    filled: usize,
}

impl Chunk {
    /// The whole lines, each with its newline.
    pub(super) fn lines(&self) -> &[u8] {
        &self.buffer[..self.whole]
    }

    /// The last line of the recording, if it has no newline.
    pub(super) fn last_line(&self) -> Option<&[u8]> {
        Some(&self.buffer[self.whole..self.filled]).filter(|line| !line.is_empty())
    }
}

impl Chunk {
    /// Text has no zero byte; the first of a recording shows what it is.
    pub(super) fn is_binary(&self) -> bool {
        memchr::memchr(0, &self.buffer[..self.filled.min(LOOKED_AT)]).is_some()
    }
}

impl Chunks {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, rest: Vec::new(), skipping: false, done: false, bytes: 0 }
    }

    /// Reads about `size` bytes, to the end of a line. An error is the end; what came before it is in the chunk.
    pub(super) fn fill(&mut self, chunk: &mut Chunk, size: usize) -> Option<io::Error> {
        let buffer = &mut chunk.buffer;
        let mut filled = self.rest.len();
        if buffer.len() < filled.max(size) {
            buffer.resize(filled.max(size), 0);
        }
        buffer[..filled].copy_from_slice(&self.rest);
        self.rest.clear();
        let (mut error, mut newline) = (None, None);
        while !self.done && (filled < size || newline.is_none()) {
            if buffer.len() - filled < size.min(1 << 12) {
                buffer.resize(filled + size, 0);
            }
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => self.done = true,
                Ok(n) => {
                    self.bytes += n as u64;
                    let (from, to) = (self.skip(&mut buffer[filled..filled + n]), filled + n);
                    buffer.copy_within(filled + from..to, filled);
                    let new = filled..to - from;
                    newline =
                        memchr::memrchr(b'\n', &buffer[new.clone()]).map(|at| new.start + at).or(newline);
                    filled = new.end;
                    let tail = newline.map_or(0, |at| at + 1);
                    if filled - tail > LONGEST_LINE + 1 {
                        // One byte more than the longest, and one that may be a carriage return.
                        self.skipping = true;
                        filled = tail + LONGEST_LINE + 2;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.done = true;
                    error = Some(e);
                }
            }
        }
        chunk.filled = filled;
        chunk.whole = newline.map_or(0, |at| at + 1);
        if !self.done {
            self.rest.extend_from_slice(&buffer[chunk.whole..filled]);
        }
        error
    }

    /// How many of these bytes still belong to a line that is too long.
    fn skip(&mut self, new: &mut [u8]) -> usize {
        if !self.skipping {
            return 0;
        }
        let end = memchr::memchr(b'\n', new);
        self.skipping = end.is_none();
        end.unwrap_or(new.len())
    }
}
