use std::io::Write;

use super::*;
use crate::hw::Kind::{Fetch, Load, Store};

fn file(bytes: &[u8], name: &str) -> String {
    let path = std::env::temp_dir().join(format!("tlbcore-addresses-{}-{name}", std::process::id()));
    std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("temporary file");
    path.to_string_lossy().into_owned()
}

type Access = (u64, u8, u16);

/// All accesses, in pieces of `count`, and the fault at the end.
fn read(bytes: &[u8], name: &str, count: usize) -> (Vec<Access>, Option<String>) {
    let mut reader = match Reader::open(&file(bytes, name), None) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut all = Vec::new();
    loop {
        let mut chunk = Chunk::default();
        let more = reader.read(&mut chunk, count);
        assert!(chunk.addresses.len() <= count.max(MOST), "{} in a piece of {count}", chunk.addresses.len());
        all.extend(chunk.addresses.iter().zip(&chunk.kinds).zip(&chunk.cpus).map(|((&a, &k), &c)| (a, k, c)));
        match more {
            Ok(true) => {}
            Ok(false) => return (all, None),
            Err(error) => return (all, Some(error.to_string())),
        }
    }
}

/// What must come out, in pieces of every size.
fn gives(bytes: &[u8], name: &str, wanted: &[(u64, crate::hw::Kind, u16)]) {
    let wanted: Vec<Access> = wanted.iter().map(|&(address, kind, cpu)| (address, kind as u8, cpu)).collect();
    for count in [1, 8, 9, 20, 1 << 20] {
        assert_eq!(read(bytes, name, count), (wanted.clone(), None), "{name} in pieces of {count}");
    }
}

/// More than two blocks of fetches from 0, 1, 2, ...
fn counted() -> String {
    use std::fmt::Write;
    (0..300_000_u64).fold(String::new(), |mut text, n| {
        writeln!(text, "I  {n:x},4").expect("memory");
        text
    })
}

fn champsim(ip: u64, branch: [u8; 2], stores: [u64; 2], loads: [u64; 4]) -> Vec<u8> {
    let mut record = ip.to_le_bytes().to_vec();
    record.extend(branch);
    record.extend([1, 0, 2, 3, 0, 0]); // registers
    stores.iter().chain(&loads).for_each(|address| record.extend(address.to_le_bytes()));
    assert_eq!(record.len(), binary::CHAMPSIM);
    record
}

fn entry(what: u16, size: u16, value: u64) -> Vec<u8> {
    [&what.to_le_bytes()[..], &size.to_le_bytes(), &value.to_le_bytes()].concat()
}

#[test]
fn champsim_gives_the_fetch_then_loads_then_stores() {
    let trace = [
        champsim(0x40_1000, [0, 0], [0x7ffe_0008, 0], [0x60_0000, 0, 0x60_1000, 0]),
        champsim(0xffff_ffff_8100_0000, [1, 1], [0, 0], [0; 4]),
    ]
    .concat();
    let wanted = [
        (0x40_1000, Fetch, 0),
        (0x60_0000, Load, 0),
        (0x60_1000, Load, 0),
        (0x7ffe_0008, Store, 0),
        (0xffff_ffff_8100_0000, Fetch, 0),
    ];
    gives(&trace, "champsim", &wanted);
    let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 6);
    packed.write_all(&trace).expect("memory");
    gives(&packed.finish().expect("memory"), "champsim.xz", &wanted);

    let (some, fault) = read(&trace[..100], "cut", 8);
    assert_eq!(some.len(), 4, "what is whole is read");
    assert!(
        fault.expect("cut").contains("byte 64 (unpacked): the trace ends inside a record: 36 of 64 bytes")
    );
    let bad = [trace.clone(), champsim(0x40_1000, [7, 0], [0; 2], [0; 4])].concat();
    let mut all = trace.repeat(300);
    all.extend(&bad);
    let fault = read(&all, "bad", 1 << 20).1.expect("refused");
    assert!(fault.contains(&format!("byte {}", 602 * 64)) && fault.contains("got 7 and 0"), "{fault}");
}

#[test]
fn drmemtrace_follows_threads_cpus_and_bundles() {
    let trace = [
        entry(25, 0, 5),           // header, version 5
        entry(28, 12, 5),          // marker: version
        entry(22, 0, 4711),        // thread
        entry(24, 0, 4711),        // pid
        entry(28, 3, 0x1002),      // CPU 2 of node 1
        entry(47, 3, 0x00c3_8948), // encoding
        entry(10, 3, 0x40_1000),   // mov
        entry(0, 8, 0x7ffd_0000),  // its load
        entry(17, 3, 0x0004_0205), // three more: 5, 2 and 4 bytes
        entry(1, 4, 0x7ffd_0010),  // store
        entry(29, 2, 0x40_100e),   // rep movs, second time: no fetch
        entry(4, 0, 0x7ffd_1000),  // prefetch: stops for nothing
        entry(28, 3, u64::MAX),    // CPU unknown: the last one stays
        entry(30, 2, 0x40_100e),   // maybe: the address of the last one, so no fetch
        entry(48, 2, 0x40_1010),   // taken jump
        entry(10, 0, 0x40_1012),   // only says where the next access is from
        entry(23, 0, 4711),
        entry(26, 0, 0),
    ]
    .concat();
    let wanted = [
        (0x40_1000, Fetch, 2),
        (0x7ffd_0000, Load, 2),
        (0x40_1003, Fetch, 2),
        (0x40_1008, Fetch, 2),
        (0x40_100a, Fetch, 2),
        (0x7ffd_0010, Store, 2),
        (0x40_1010, Fetch, 2),
    ];
    gives(&trace, "drmemtrace", &wanted);

    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (index, part) in trace.chunks(60).enumerate() {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("chunk.{index:04}"), options).expect("memory");
        zip.write_all(part).expect("memory");
    }
    let zip = zip.finish().expect("memory").into_inner();
    gives(&zip, "drmemtrace.zip", &wanted);
    // One bit flipped in a member is found by its checksum.
    let mut flipped = zip.clone();
    let at = zip.windows(4).position(|four| four == [0x10, 0x40, 0, 0]).map_or(45, |at| at);
    flipped[at] ^= 4;
    assert!(read(&flipped, "flipped.zip", 1 << 20).1.is_some());

    let cut = &trace[..trace.len() - binary::ENTRY];
    let (some, fault) = read(cut, "unfooted", 1 << 20);
    assert_eq!(some.len(), wanted.len());
    assert!(fault.expect("cut").contains("without a footer"));
    let strange = [&trace[..24], &entry(77, 0, 0)[..]].concat();
    assert!(
        read(&strange, "type", 8)
            .1
            .expect("refused")
            .ends_with("byte 24 (unpacked): an entry must have a type up to 49: got 77")
    );
    let bundle = [&trace[..24], &entry(17, 9, 0)[..]].concat();
    assert!(read(&bundle, "bundle", 8).1.expect("refused").contains("at most 8 instructions: got 9"));
}

#[test]
fn lackey_skips_valgrinds_lines_and_names_others() {
    let trace = b"==7== Lackey, an example Valgrind tool\n==7== \nI  04016b00,3\n L 1ffeffe7e0,8\n S 1ffeffe7d8,8\nI  04016b03,5\n M 0421c7cc,4\n==7== \n";
    let wanted = [
        (0x0401_6b00, Fetch, 0),
        (0x1f_feff_e7e0, Load, 0),
        (0x1f_feff_e7d8, Store, 0),
        (0x0401_6b03, Fetch, 0),
        (0x0421_c7cc, Load, 0),
        (0x0421_c7cc, Store, 0),
    ];
    gives(trace, "lackey", &wanted);
    for (line, bad) in [" L 0421c7cc", " X 0421c7cc,4", "I  0421c7cg,4", "I  00000000421c7cc00,4", "hello"]
        .iter()
        .enumerate()
    {
        let text = format!("I  04016b00,3\n{bad}\n");
        let (some, fault) = read(text.as_bytes(), &format!("lackey-bad-{line}"), 8);
        let fault = fault.expect("refused");
        assert!(
            some.len() == 1
                && fault.contains(":2: a line of lackey must be")
                && fault.ends_with(&format!("got {bad:?}")),
            "{fault}"
        );
    }
}

#[test]
fn pinatrace_and_gem5_and_columns() {
    gives(
        b"0x7f10: R 0x7ffc0010\n0x7f14: W 0x7ffc0018\n#eof\n",
        "pin",
        &[(0x7ffc_0010, Load, 0), (0x7ffc_0018, Store, 0)],
    );
    gives(
        b"r,4096,64,0,1000\nw,8192,64,0,2000,4198400\nu,1,64,0,3000\n",
        "packets",
        &[(4096, Load, 0), (8192, Store, 0)],
    );
    gives(b"17,w,8192,64,2000\n", "packets-ids", &[(8192, Store, 0)]);
    let text = b"gem5 Simulator System.  https://www.gem5.org\n   1000: system.mem_ctrls: IFetch from cpu3.inst of size 64 on address 0x4000 C\n 2000: system.mem_ctrls: Write from cpu1.data of size 8 on address 0x91f40 data 0x1 C\n  3000: system.cpu0: T0 : 0x400b40 @_start : mov : MemRead :  D=0x0000000000000001 A=0x7fff10\n 4000: system.l2: something else\n";
    gives(text, "gem5", &[(0x4000, Fetch, 3), (0x9_1f40, Store, 1), (0x7f_ff10, Load, 0)]);
    gives(
        b"cpu;kind;Address\r\n1;store;0x1000\r\n0;R;-4096\r\n",
        "csv",
        &[(0x1000, Store, 1), (0xffff_ffff_ffff_f000, Load, 0)],
    );
    gives(b"0x10\n32\n", "list", &[(16, Load, 0), (32, Load, 0)]);
    for (name, text, said) in [
        ("kind", "address,kind\n1,laod\n", ":2: a kind must be load, store or fetch"),
        ("cpu", "address,cpu\n1,65536\n", ":2: a CPU must be a whole number up to 65535"),
        ("fields", "address,cpu\n1,2\n1\n", ":3: a row must have 2 fields, as the header has: got 1"),
        ("address", "address\n0x1\n99999999999999999999\n", ":3: an address must be"),
        ("none", "time,what\n1,2\n", "is no address trace of a known format"),
        ("protobuf", "gem5\u{1}\u{2}", "decode_packet_trace.py"),
    ] {
        let fault = read(text.as_bytes(), name, 8).1.expect("refused");
        assert!(fault.contains(said), "{name}: {fault}");
    }
}

#[test]
fn a_line_without_end_is_refused_and_the_last_line_needs_none() {
    gives(b"I  10,1\nI  20,1", "no-newline", &[(16, Fetch, 0), (32, Fetch, 0)]);
    let long = [&b"I  10,1\n"[..], &vec![b'a'; 3 << 20]].concat();
    let (some, fault) = read(&long, "long", 8);
    assert_eq!(some.len(), 1);
    assert!(fault.expect("refused").contains(":2: a line must have at most 65536 bytes"));
}

#[test]
fn blocks_cut_records_and_lines_anywhere() {
    let text = counted();
    assert!(text.len() > 2 * BLOCK);
    let (all, fault) = read(text.as_bytes(), "blocks", 1000);
    assert_eq!(fault, None);
    assert!(all.len() == 300_000 && all.iter().zip(0..).all(|(access, n)| access.0 == n));
}

#[test]
fn damage_is_said_after_what_came_before_it() {
    let text = counted();
    let packed = zstd::encode_all(text.as_bytes(), 1).expect("memory");
    let (some, fault) = read(&packed[..packed.len() - 1000], "cut.zst", 1 << 20);
    assert!(!some.is_empty());
    assert!(fault.expect("damaged").contains("the packed data is damaged after line"));
}

#[test]
fn no_bytes_make_it_panic() {
    use crate::hw::array::splitmix64;
    let samples: [&[u8]; 6] = [
        b"I  04016b00,3\n L 1ff,8\n",
        b"0x7f10: R 0x7ffc0010\n",
        b"r,4096,64,0,1000\n",
        b" 1: a: Read from cpu0 of size 8 on address 0x10 C\n 2: b: T0 : MemRead : A=0x1\n",
        b"address,kind,cpu\n1,load,0\n",
        &[25, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 17, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    ];
    for round in 0..600 {
        let mut bytes = samples[round as usize % samples.len()].to_vec();
        for change in 0..=round % 5 {
            let draw = splitmix64(round, change);
            let at = draw as usize % bytes.len();
            match draw >> 60 {
                0..=9 => bytes[at] = (draw >> 32) as u8,
                10..=12 => bytes.truncate(at + 1),
                _ => bytes.extend_from_within(at..),
            }
        }
        for format in Format::ALL {
            let source = Box::new(std::io::Cursor::new(bytes.clone()));
            let Ok(mut reader) = Reader::new("noise", source, Some(format)) else { continue };
            let mut chunk = Chunk::default();
            while matches!(reader.read(&mut chunk, 100), Ok(true)) {}
        }
    }
}
