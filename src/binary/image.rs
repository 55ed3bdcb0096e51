//! From a file to the kernel's ELF: bzImage (gzip, xz, lz4, zstd) or a vmlinux, its sections and its bytes by address.
//! Nothing here is unpacked beyond [`LARGEST`], and every read is checked against the section it is made in.

use std::io::Read;

use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS};
use object::read::elf::{FileHeader, SectionHeader};

use super::BinaryError;

/// The largest kernel that is unpacked; six of Debian's have 60 to 90 MiB.
pub const LARGEST: usize = 512 << 20;

/// One section of the ELF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name, such as `.altinstructions`.
    pub name: String,
    /// First address; per-CPU data of kernels before 6.15 starts at 0.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where its bytes are in the ELF; `None` for `.bss`.
    offset: Option<usize>,
    /// Is it loaded?
    pub loaded: bool,
    /// Does it hold instructions?
    pub code: bool,
}

impl Section {
    /// Does the address lie in it?
    pub fn holds(&self, address: u64) -> bool {
        address >= self.address && address - self.address < self.size
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub struct Image {
    elf: Vec<u8>,
    /// Sections, in the order of the file.
    pub sections: Vec<Section>,
    /// How it was packed: `ELF`, or `bzImage, xz` and the like.
    pub packing: String,
    /// The release, as `uname -r` prints it; `None` where the image has no `Linux version` text.
    pub release: Option<String>,
}

/// Little-endian words out of a slice; `None` past its end.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// As [`u16_at`].
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// As [`u16_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn refuse<T>(message: impl Into<String>) -> Result<T, BinaryError> {
    Err(BinaryError(message.into()))
}

impl Image {
    /// Unpack a file's bytes.
    pub fn parse(file: Vec<u8>) -> Result<Self, BinaryError> {
        if file.starts_with(b"\x7fELF") {
            return Self::elf(file, "ELF".into());
        }
        if u32_at(&file, 0x202) == Some(u32::from_le_bytes(*b"HdrS")) {
            let (packed, kind) = payload(&file)?;
            let elf = unpack(packed, kind)?;
            if !elf.starts_with(b"\x7fELF") {
                return refuse(format!(
                    "the {} payload of the bzImage is no ELF: the file is damaged",
                    kind.name()
                ));
            }
            return Self::elf(elf, format!("bzImage, {}", kind.name()));
        }
        refuse(what_else(&file))
    }

    fn elf(elf: Vec<u8>, packing: String) -> Result<Self, BinaryError> {
        let bad = |e: object::read::Error| BinaryError(format!("damaged ELF: {e}"));
        if elf.get(4) != Some(&2) || elf.get(5) != Some(&1) {
            return refuse("an ELF that is not 64-bit little-endian: only x86-64 kernels are read");
        }
        let header = FileHeader64::<Endianness>::parse(&*elf).map_err(bad)?;
        let endian = header.endian().map_err(bad)?;
        let machine = header.e_machine(endian);
        if machine != EM_X86_64 {
            return refuse(format!(
                "an ELF of machine {} ({}): only x86-64 kernels are read",
                machine,
                machine_name(machine)
            ));
        }
        let table = header.sections(endian, &*elf).map_err(bad)?;
        let mut sections = Vec::new();
        for header in table.iter() {
            let name = String::from_utf8_lossy(table.section_name(endian, header).map_err(bad)?).into_owned();
            let (address, size) = (header.sh_addr(endian), header.sh_size(endian));
            let offset = if header.sh_type(endian) == SHT_NOBITS {
                None
            } else {
                let start = header.sh_offset(endian);
                if start.checked_add(size).is_none_or(|end| end > elf.len() as u64) {
                    return refuse(format!(
                        "section {name} of {size} bytes at offset {start} reaches past the end of the {} bytes: the file is truncated",
                        elf.len()
                    ));
                }
                Some(start as usize)
            };
            if address.checked_add(size).is_none() {
                return refuse(format!("section {name} of {size} bytes at {address:#x} wraps around"));
            }
            let flags = header.sh_flags(endian);
            sections.push(Section {
                name,
                address,
                size,
                offset,
                loaded: flags & u64::from(SHF_ALLOC) != 0,
                code: flags & u64::from(SHF_EXECINSTR) != 0,
            });
        }
        if !sections.iter().any(|s| s.code) {
            return refuse(
                "an ELF without a section of code: give the vmlinux or vmlinuz itself, not its debug file",
            );
        }
        let release = release(&elf);
        Ok(Self { elf, sections, packing, release })
    }

    /// The whole ELF.
    pub fn bytes(&self) -> &[u8] {
        &self.elf
    }

    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// A section's bytes; empty for `.bss`.
    pub fn content(&self, section: &Section) -> &[u8] {
        section.offset.map_or(&[], |at| &self.elf[at..at + section.size as usize])
    }

    /// The section that an address lies in. Per-CPU offsets, which start at 0, are looked up only where asked for.
    pub fn section_at(&self, address: u64) -> Option<&Section> {
        self.sections.iter().find(|s| s.loaded && s.holds(address))
    }

    /// `len` bytes at an address, if one section holds them all.
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        let section = self.section_at(address)?;
        let from = (address - section.address) as usize;
        self.content(section).get(from..from.checked_add(len)?)
    }

    /// All bytes from an address to the end of its section.
    pub fn from(&self, address: u64) -> Option<&[u8]> {
        let section = self.section_at(address)?;
        self.content(section).get((address - section.address) as usize..)
    }

    /// The same image with other bytes in one section.
    ///
    /// # Panics
    ///
    /// If they are not as many as the section has.
    #[must_use]
    pub fn with(&self, section: &Section, bytes: &[u8]) -> Self {
        let mut elf = self.elf.clone();
        if let Some(at) = section.offset {
            elf[at..at + section.size as usize].copy_from_slice(bytes);
        }
        Self {
            elf,
            sections: self.sections.clone(),
            packing: self.packing.clone(),
            release: self.release.clone(),
        }
    }

    /// Major and minor version, as `(6, 12)`.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.as_ref()?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// The release in `Linux version RELEASE (...)`, of which a kernel has one in its read-only data.
fn release(elf: &[u8]) -> Option<String> {
    let marker = b"Linux version ";
    memchr::memmem::find_iter(elf, marker).find_map(|at| {
        let rest = elf.get(at + marker.len()..at + marker.len() + 128)?;
        let word = rest.split(|b| *b == b' ').next()?;
        let text = std::str::from_utf8(word).ok()?;
        text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.to_owned())
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Xz,
    Lz4,
    Zstd,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The packed kernel inside a bzImage (Documentation/arch/x86/boot.rst: `payload_offset`, `payload_length`).
fn payload(file: &[u8]) -> Result<(&[u8], Kind), BinaryError> {
    let truncated = || BinaryError("a bzImage that ends within its header: the file is truncated".into());
    let protocol = u16_at(file, 0x206).ok_or_else(truncated)?;
    if protocol < 0x0208 {
        return refuse(format!(
            "a bzImage of boot protocol {}.{:02}: 2.08 (Linux 2.6.26) or newer says where the kernel is",
            protocol >> 8,
            protocol & 0xff
        ));
    }
    let setup = match *file.get(0x1f1).ok_or_else(truncated)? {
        0 => 4, // the default of boot.rst
        sectors => usize::from(sectors),
    };
    let offset = u32_at(file, 0x248).ok_or_else(truncated)? as usize;
    let length = u32_at(file, 0x24c).ok_or_else(truncated)? as usize;
    let start = (setup + 1) * 512 + offset;
    let Some(packed) = file.get(start..start.saturating_add(length)) else {
        return refuse(format!(
            "the bzImage says {length} bytes at {start}, but the file has {}: it is truncated",
            file.len()
        ));
    };
    let kind = match packed {
        [0x1f, 0x8b, ..] => Kind::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Kind::Xz,
        [0x02, 0x21, 0x4c, 0x18, ..] => Kind::Lz4,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Zstd,
        _ => {
            let start: Vec<String> = packed.iter().take(6).map(|b| format!("{b:02x}")).collect();
            return refuse(format!(
                "the bzImage is packed with {} (first bytes {}): unpack it with the kernel's scripts/extract-vmlinux and \
                 give the vmlinux; gzip, xz, lz4 and zstd are read directly",
                match packed {
                    [b'B', b'Z', b'h', ..] => "bzip2",
                    [0x5d, 0, 0, ..] => "lzma",
                    [0x89, b'L', b'Z', b'O', ..] => "lzo",
                    _ => "a compression that is not known here",
                },
                start.join(" ")
            ));
        }
    };
    Ok((packed, kind))
}

fn unpack(packed: &[u8], kind: Kind) -> Result<Vec<u8>, BinaryError> {
    let damaged = |e: &dyn std::fmt::Display| {
        BinaryError(format!("the {} payload of the bzImage is damaged: {e}", kind.name()))
    };
    let mut out = Vec::new();
    // The unpacked size follows the payload, or is gzip's own last word. It only reserves.
    let says = u32_at(packed, packed.len().saturating_sub(4)).unwrap_or(0) as usize;
    out.reserve(says.min(LARGEST));
    let limit = LARGEST as u64 + 1;
    match kind {
        Kind::Gzip => {
            flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut out).map_err(|e| damaged(&e))?
        }
        Kind::Xz => liblzma::read::XzDecoder::new(packed)
            .take(limit)
            .read_to_end(&mut out)
            .map_err(|e| damaged(&e))?,
        Kind::Zstd => {
            let stream = zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| damaged(&e))?;
            stream.single_frame().take(limit).read_to_end(&mut out).map_err(|e| damaged(&e))?
        }
        Kind::Lz4 => lz4(packed, &mut out).map_err(|e| damaged(&e))?,
    };
    if out.len() > LARGEST {
        return refuse(format!("the kernel unpacks to more than {} MiB, which no kernel has", LARGEST >> 20));
    }
    Ok(out)
}

/// lz4's legacy frame (`lz4 -l`): after the magic number, blocks of 8 MiB with their packed length before them.
fn lz4(packed: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
    const BLOCK: usize = 8 << 20;
    let mut at = 4;
    let mut block = vec![0; BLOCK];
    // The last word is the unpacked size that the kernel's build appends.
    while at + 8 <= packed.len() {
        let len = u32_at(packed, at).expect("checked") as usize;
        let Some(bytes) = packed.get(at + 4..(at + 4).saturating_add(len)) else {
            return Err(format!("a block of {len} bytes at {at} reaches past the end"));
        };
        let got = lz4_flex::block::decompress_into(bytes, &mut block).map_err(|e| e.to_string())?;
        out.extend_from_slice(&block[..got]);
        if out.len() > LARGEST {
            break;
        }
        at += 4 + len;
    }
    Ok(out.len())
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "i386",
        21 | 22 => "PowerPC or s390",
        40 => "ARM",
        183 => "arm64",
        243 => "RISC-V",
        _ => "another architecture",
    }
}

/// Names what a file is that is no x86 kernel.
fn what_else(file: &[u8]) -> String {
    const GIVE: &str = "give /boot/vmlinuz-RELEASE or a vmlinux";
    if file.len() < 1024 {
        return format!("a file of {} bytes is no kernel image: {GIVE}", file.len());
    }
    if file.get(0x38..0x3c) == Some(b"ARMd") || file.get(4..8) == Some(b"zimg") {
        return "an arm64 kernel: only x86-64 kernels are read".into();
    }
    let kind = match file {
        [0x1f, 0x8b, ..] => "a gzip file",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "an xz file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        [b'!', b'<', b'a', b'r', ..] => "a package or archive",
        [b'0', b'7', b'0', b'7', ..] => "a cpio archive (an initrd)",
        _ => return format!("neither a bzImage (no HdrS at 0x202) nor an ELF: {GIVE}"),
    };
    format!("{kind}, no kernel image: unpack it, and {GIVE}")
}
