//! Any bytes are a machine, or the configuration and command line of a kernel, that is read or refused.
//! The first byte chooses.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlbcore::hw::preset::Preset;
use tlbcore::kernel::config::Config;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match choice & 3 {
        0 | 1 => drop(Preset::parse(text, "fuzzed.toml")),
        2 => drop(Config::parse(text, "config", "", None)),
        _ => drop(Config::parse("CONFIG_X86_64=y\n", "config", text, Some(text))),
    }
});
