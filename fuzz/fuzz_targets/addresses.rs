//! Any bytes are an address trace that is read to its end or refused, in every format, and in pieces of any size the same.
//! The first byte chooses the format and the size of a piece.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tlbcore::addresses::{Chunk, Format, Reader};

fn all(bytes: &[u8], format: Option<Format>, count: usize) -> (Vec<u64>, Option<String>) {
    let mut reader = match Reader::new("fuzzed", Box::new(Cursor::new(bytes.to_vec())), format) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut found = Vec::new();
    loop {
        let mut chunk = Chunk::default();
        let more = reader.read(&mut chunk, count);
        assert!(chunk.addresses.len() == chunk.kinds.len() && chunk.addresses.len() == chunk.cpus.len());
        assert!(chunk.kinds.iter().all(|&kind| kind < 3));
        found.extend(chunk.addresses);
        match more {
            Ok(true) => {}
            Ok(false) => return (found, None),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let format = Format::ALL.get(usize::from(choice & 7)).copied();
    let whole = all(bytes, format, 1 << 20);
    assert_eq!(all(bytes, format, 8 + usize::from(choice >> 3)), whole);
});
