//! Bytes of a recording: plain, .gz, .xz or .zst, told apart by their first bytes, from a file or standard input; a
//! `trace.dat` becomes text here.
//!
//! A decoder runs on a thread of its own, a few blocks ahead of the parser, so memory does not depend on the length of
//! the recording and one core is left to the parser.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{
    TraceError,
    import::dat::{self, bytes::Bytes},
};
use crate::bounded::{RATIO, WHOLE, bounded};

const BLOCK: usize = 1 << 18;
const AHEAD: usize = 4;

/// What a recording is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Nothing.
    Plain,
    /// gzip, RFC 1952.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Packing {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Memory that unpacking may take: `xz -9` needs 65 MiB, what asks for more was made to ask for it.
const UNPACKING: u64 = 256 << 20;

/// A file, or standard input, and its first bytes.
fn begin(path: &str) -> Result<(Box<dyn Read + Send>, Vec<u8>), TraceError> {
    let refuse = |reason: String| TraceError::Open { path: path.to_owned(), reason };
    let mut raw: Box<dyn Read + Send> = if path == "-" {
        Box::new(io::stdin())
    } else {
        let meta = std::fs::metadata(Path::new(path)).map_err(|e| refuse(words(&e)))?;
        if meta.is_dir() {
            return Err(refuse("is a directory, not a recording".into()));
        }
        Box::new(File::open(path).map_err(|e| refuse(words(&e)))?)
    };
    let mut head = Vec::new();
    (&mut raw).take(16).read_to_end(&mut head).map_err(|e| refuse(words(&e)))?;
    if head.is_empty() {
        return Err(TraceError::Empty { path: path.to_owned() });
    }
    Ok((raw, head))
}

/// Opens `path` (`-` is standard input) and starts a decoder if it is packed.
pub fn open(path: &str) -> Result<Box<dyn Read + Send>, TraceError> {
    let refuse = |reason: String| TraceError::Open { path: path.to_owned(), reason };
    let (raw, head) = begin(path)?;
    if head.starts_with(dat::MAGIC) {
        let bytes = if path == "-" {
            let mut all = head;
            raw.take(WHOLE).read_to_end(&mut all).map_err(|e| refuse(words(&e)))?;
            if all.len() as u64 > WHOLE {
                return Err(refuse(format!("a trace.dat of more than {WHOLE} bytes must be a file")));
            }
            Bytes::Memory(all)
        } else {
            let file = File::open(path).map_err(|e| refuse(words(&e)))?;
            let len = file.metadata().map_err(|e| refuse(words(&e)))?.len();
            Bytes::File(file, len)
        };
        let text = dat::open(bytes).map_err(|fault| refuse(format!("trace.dat {fault}")))?;
        return Ok(Box::new(Ahead::start(text)));
    }
    if head.starts_with(b"PERFILE2") {
        return Err(TraceError::Binary {
            path: path.to_owned(),
            what: "is a binary perf.data; convert it with `perf script -i FILE > FILE.txt`".into(),
        });
    }
    decode(path, head, raw, RATIO, unpacked)
}

/// The bytes of a file of any other kind: plain, .gz, .xz, .zst, or the members of a .zip, one after the other.
pub fn unpack(path: &str) -> Result<Box<dyn Read + Send>, TraceError> {
    let (raw, head) = begin(path)?;
    if path != "-" && head.starts_with(b"PK\x03\x04") {
        let refuse = |reason: String| TraceError::Open { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|e| refuse(words(&e)))?;
        let members = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|e| refuse(e.to_string()))?;
        return Ok(Box::new(Ahead::start_members(members)));
    }
    // A loop's addresses repeat without end, and are never held as a whole.
    decode(path, head, raw, u64::MAX, |decoder| Ok(Box::new(decoder)))
}

/// What comes out of a decoder; `then` looks into it on the decoder's thread.
fn decode(
    path: &str,
    head: Vec<u8>,
    raw: Box<dyn Read + Send>,
    ratio: u64,
    then: Then,
) -> Result<Box<dyn Read + Send>, TraceError> {
    let refuse = |reason: String| TraceError::Open { path: path.to_owned(), reason };
    let packing = Packing::of(&head);
    let whole = Cursor::new(head).chain(raw);
    if packing == Packing::Plain {
        return Ok(Box::new(whole));
    }
    let decoder = bounded(whole, ratio, u64::MAX, |whole| -> io::Result<Box<dyn Read + Send>> {
        Ok(match packing {
            Packing::Plain => Box::new(whole),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Packing::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(UNPACKING, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::read::XzDecoder::new_stream(whole, stream))
            }
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(whole)?;
                decoder.window_log_max(UNPACKING.ilog2() - 1)?;
                Box::new(decoder)
            }
        })
    })
    .map_err(|e| refuse(words(&e)))?;
    Ok(Box::new(Ahead::start_with(Box::new(decoder), then)))
}

/// Several recordings as one text, in the order of their time stamps: per-CPU files, or parts of one machine's
/// recording. A line without a time stamp stays behind the line before it.
pub fn merge(paths: &[String], stamp: fn(&[u8]) -> Option<u64>) -> Result<Box<dyn Read + Send>, TraceError> {
    let parts = paths.iter().map(|path| Part::start(open(path)?, path, stamp)).collect::<Result<_, _>>()?;
    Ok(Box::new(Merged { parts, stamp, now: Cursor::new(Vec::new()) }))
}

/// One recording of a merged set, with its next line.
struct Part {
    lines: io::BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    key: u64,
}

impl Part {
    fn start(
        source: Box<dyn Read + Send>,
        path: &str,
        stamp: fn(&[u8]) -> Option<u64>,
    ) -> Result<Self, TraceError> {
        let mut part = Self { lines: io::BufReader::with_capacity(BLOCK, source), line: Vec::new(), key: 0 };
        part.next(stamp).map_err(|e| TraceError::Open { path: path.to_owned(), reason: words(&e) })?;
        Ok(part)
    }

    /// Reads the next line; an empty one is the end.
    fn next(&mut self, stamp: fn(&[u8]) -> Option<u64>) -> io::Result<()> {
        use io::BufRead;
        self.line.clear();
        // A line without an end must not fill the memory.
        (&mut self.lines).take(BLOCK as u64).read_until(b'\n', &mut self.line)?;
        if let Some(key) = stamp(&self.line) {
            self.key = key;
        }
        Ok(())
    }
}

struct Merged {
    parts: Vec<Part>,
    stamp: fn(&[u8]) -> Option<u64>,
    now: Cursor<Vec<u8>>,
}

impl Read for Merged {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.now.read(into)?;
            if n > 0 || into.is_empty() {
                return Ok(n);
            }
            // The first of equals goes first, so that ties keep the order of the files.
            let Some(part) = self.parts.iter_mut().filter(|p| !p.line.is_empty()).min_by_key(|p| p.key)
            else {
                return Ok(0);
            };
            let mut line = std::mem::take(self.now.get_mut());
            std::mem::swap(&mut line, &mut part.line);
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            self.now = Cursor::new(line);
            part.next(self.stamp)?;
        }
    }
}

/// The text of some lines, by ascending number from 1; bad UTF-8 is replaced.
pub fn lines(path: &str, wanted: &[u64]) -> Result<Vec<(u64, String)>, TraceError> {
    use std::io::BufRead;
    let mut reader = io::BufReader::with_capacity(BLOCK, open(path)?);
    let (mut out, mut number, mut line) = (Vec::new(), 0, Vec::new());
    for &want in wanted {
        while number < want {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(n) if n > 0 => number += 1,
                _ => return Ok(out), // damage was reported when the recording was read
            }
        }
        out.push((number, String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
    }
    Ok(out)
}

/// The system's words without Rust's `(os error 2)`.
fn words(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// What looks into unpacked bytes.
type Then = fn(Box<dyn Read + Send>) -> io::Result<Box<dyn Read>>;

/// What a packed file holds: text, or a `trace.dat` that becomes text.
fn unpacked(mut decoder: Box<dyn Read + Send>) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    (&mut decoder).take(dat::MAGIC.len() as u64).read_to_end(&mut head)?;
    if head == dat::MAGIC {
        if (&mut decoder).take(WHOLE).read_to_end(&mut head)? as u64 == WHOLE {
            return Err(io::Error::other(format!("unpacks to a trace.dat of more than {WHOLE} bytes")));
        }
        let text = dat::open(Bytes::Memory(head));
        return text
            .map(|text| text as Box<dyn Read>)
            .map_err(|fault| io::Error::other(format!("trace.dat {fault}")));
    }
    Ok(Box::new(Cursor::new(head).chain(decoder)))
}

/// A decoder on its own thread. Blocks travel to the reader and come back to be filled again.
struct Ahead {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    now: Cursor<Vec<u8>>,
}

/// The decoder's side.
struct Sender {
    filled: SyncSender<io::Result<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
}

impl Sender {
    /// Sends all of it; `false` when there is no more to do, after a fault or without a reader.
    fn send(&self, decoder: &mut dyn Read) -> bool {
        loop {
            let mut block: Vec<u8> = self.used.try_recv().unwrap_or_default();
            block.resize(BLOCK, 0);
            let mut len = 0;
            while len < BLOCK {
                match decoder.read(&mut block[len..]) {
                    Ok(0) => break,
                    Ok(n) => len += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        block.truncate(len);
                        let _ = self.filled.send(Ok(block)).and_then(|()| self.filled.send(Err(e)));
                        return false;
                    }
                }
            }
            block.truncate(len);
            if len == 0 {
                return true;
            }
            if self.filled.send(Ok(block)).is_err() {
                return false;
            }
        }
    }
}

impl Ahead {
    /// A thread that works until it is done, or until the reader is dropped and sending fails.
    fn spawn(work: impl FnOnce(&Sender) + Send + 'static) -> Self {
        let (filled, full) = sync_channel::<io::Result<Vec<u8>>>(AHEAD);
        let (empty, used) = sync_channel::<Vec<u8>>(AHEAD + 2);
        let sender = Sender { filled, used };
        thread::spawn(move || work(&sender));
        Self { full, empty, now: Cursor::new(Vec::new()) }
    }

    fn start(decoder: Box<dyn Read + Send>) -> Self {
        Self::start_with(decoder, unpacked)
    }

    fn start_with(decoder: Box<dyn Read + Send>, then: Then) -> Self {
        Self::spawn(move |sender| match then(decoder) {
            Ok(mut bytes) => {
                sender.send(&mut *bytes);
            }
            Err(e) => drop(sender.filled.send(Err(e))),
        })
    }

    fn start_members(mut members: zip::ZipArchive<io::BufReader<File>>) -> Self {
        Self::spawn(move |sender| {
            for index in 0..members.len() {
                let more = match members.by_index(index) {
                    Ok(mut member) => sender.send(&mut member),
                    Err(e) => return drop(sender.filled.send(Err(io::Error::other(e)))),
                };
                if !more {
                    return;
                }
            }
        })
    }
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.now.read(into)?;
            if n > 0 || into.is_empty() {
                return Ok(n);
            }
            match self.full.recv() {
                Ok(Ok(block)) => {
                    let used = std::mem::replace(&mut self.now, Cursor::new(block));
                    let _ = self.empty.try_send(used.into_inner());
                }
                Ok(Err(e)) => return Err(e),
                Err(_) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8], name: &str) -> String {
        let path = std::env::temp_dir().join(format!("tlbcore-source-{}-{name}", std::process::id()));
        File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("temporary file");
        path.to_string_lossy().into_owned()
    }

    fn text() -> Vec<u8> {
        (0..200_000).flat_map(|i: u32| format!("line {i}\n").into_bytes()).collect()
    }

    fn unpacked(bytes: &[u8], name: &str) -> Result<Vec<u8>, io::Error> {
        let mut out = Vec::new();
        let mut source = open(&file(bytes, name)).expect("opens");
        source.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_packing_gives_the_same_bytes() {
        let text = text();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).expect("memory");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).expect("memory");
        let packed = [
            ("gz", gz.finish().expect("memory")),
            ("xz", xz.finish().expect("memory")),
            ("zst", zstd::encode_all(&text[..], 1).expect("memory")),
            ("txt", text.clone()),
        ];
        for (name, bytes) in &packed {
            assert!(unpacked(bytes, name).expect("decodes") == text, "{name}");
        }
    }

    #[test]
    fn a_truncated_stream_gives_its_beginning_and_then_an_error() {
        let text = text();
        let packed = zstd::encode_all(&text[..], 1).expect("memory");
        let mut source = open(&file(&packed[..packed.len() / 2], "cut.zst")).expect("opens");
        let mut out = Vec::new();
        assert!(source.read_to_end(&mut out).is_err());
        assert!(!out.is_empty() && text.starts_with(&out));
    }

    #[test]
    fn an_empty_file_and_a_directory_are_refused_by_name() {
        let empty = file(b"", "empty");
        assert_eq!(open(&empty).err().expect("refused").to_string(), format!("{empty}: the file is empty"));
        let dir = std::env::temp_dir().to_string_lossy().into_owned();
        assert!(open(&dir).err().expect("refused").to_string().contains("is a directory"));
        assert!(open("/no/such/trace").err().expect("refused").to_string().contains("no such file"));
    }
}
