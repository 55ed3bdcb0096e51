//! Any bytes are a policy, kernel text or litmus test that is read or refused with a place inside it; what is read prints
//! as a text that is read as the same, and assembles or is refused under each set of features.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlbcore::check::litmus::Litmus;
use tlbcore::kernel::policy::load;
use tlbcore::kernel::program::Features;
use tlbcore::kernel::text::{parse, print};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Litmus::new("fuzzed.litmus", text);
    let file = match parse("fuzzed.policy", text) {
        Ok(file) => file,
        Err(error) => {
            let lines = text.lines().count().max(1) + 1;
            assert!((1..=lines).contains(&(error.at.line as usize)), "{error}");
            return;
        }
    };
    let printed = print(&file);
    let again = parse("fuzzed.policy", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(print(&again), printed);
    for features in [Features::NONE, Features::PTI_PCID] {
        let _ = load(&file, features);
    }
});
