//! Any bytes are a kernel image whose entry paths are walked, or refused: ELF files, packed or not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlbcore::binary::{census, emit};

fuzz_target!(|data: &[u8]| {
    if let Ok(found) = census::census(data.to_vec(), "") {
        let _ = found.text(Some(80));
        let _ = emit::extract(data.to_vec(), "", &[]);
    }
});
