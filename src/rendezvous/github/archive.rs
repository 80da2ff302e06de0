//! The zip file around a descriptor, so that GitHub's web page and REST download can show it. Pure.
//!
//! Written with one stored entry. Read with stored or deflated entries, because other clients deflate; only the first entry
//! counts. What is read never decides how much memory is taken.

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Packs one file (APPNOTE.TXT sections 4.3.7, 4.3.12, 4.3.16).
pub(super) fn pack(name: &str, contents: &[u8]) -> Vec<u8> {
    let size = (contents.len() as u32).to_le_bytes();
    let shared = [
        &VERSION_NEEDED.to_le_bytes()[..],
        &[0; 2], // flags
        &STORED.to_le_bytes(),
        &NO_TIME.to_le_bytes(),
        &FIRST_DAY.to_le_bytes(),
        &crc32(contents).to_le_bytes(),
        &size,
        &size,
        &(name.len() as u16).to_le_bytes(),
        &[0; 2], // extra field
    ]
    .concat();
    let mut zip = [LOCAL, &shared, name.as_bytes(), contents].concat();
    let directory = zip.len() as u32;
    zip.extend([CENTRAL, &VERSION_NEEDED.to_le_bytes(), &shared].concat());
    zip.extend([0; 14]); // comment, disk, attributes, offset of the local header
    zip.extend(name.as_bytes());
    let length = zip.len() as u32 - directory;
    let one = 1_u16.to_le_bytes();
    zip.extend([END, &[0; 4], &one, &one].concat());
    zip.extend(length.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend([0; 2]); // comment
    zip
}

/// Unpacks the first file; `None` when it is no zip file, damaged, or larger than `limit`.
pub(super) fn unpack(zip: &[u8], limit: usize) -> Option<Vec<u8>> {
    // The end record has a comment behind it that may have any length up to 64 KiB: looked for from behind.
    let end = (0..=zip.len().checked_sub(END_SIZE)?)
        .rev()
        .take(MAX_COMMENT)
        .find(|at| zip[*at..].starts_with(END))?;
    let central = zip.get(u32_at(zip, end + 16)?..)?;
    if !central.starts_with(CENTRAL) {
        return None;
    }
    let (packed, size) = (u32_at(central, 20)?, u32_at(central, 24)?);
    let local = zip.get(u32_at(central, 42)?..)?;
    if !local.starts_with(LOCAL) || size > limit {
        return None;
    }
    let skip = LOCAL_SIZE + u16_at(local, 26)? + u16_at(local, 28)?;
    let data = local.get(skip..)?.get(..packed)?;
    let contents = match u16_at(central, 10)? as u16 {
        STORED => data.to_vec(),
        DEFLATED => decompress_to_vec_with_limit(data, limit).ok()?,
        _ => return None,
    };
    let whole = contents.len() == size && crc32(&contents) as usize == u32_at(central, 16)?;
    whole.then_some(contents)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*two).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four) as usize)
}

/// CRC-32 as zip has it. Bit by bit: descriptors are a few KiB, and a table would be the larger part of this file.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const LOCAL_SIZE: usize = 30;
const END_SIZE: usize = 22;
const MAX_COMMENT: usize = 1 << 16;

/// 2.0: the version that every reader knows.
const VERSION_NEEDED: u16 = 20;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Midnight of 1 January 1980, zip's first moment: the time of a descriptor is nobody's business.
const NO_TIME: u16 = 0;
const FIRST_DAY: u16 = (1 << 5) | 1;

/// The reversed polynomial of ISO 3309.
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;
    use proptest::prelude::*;

    use super::*;

    /// The same file, its contents deflated.
    fn deflated(contents: &[u8]) -> Vec<u8> {
        let packed = compress_to_vec(contents, 6);
        let mut zip = pack("d", &packed);
        let central = LOCAL_SIZE + 1 + packed.len();
        for (at, bytes) in [
            (8, DEFLATED.to_le_bytes().to_vec()),
            (central + 10, DEFLATED.to_le_bytes().to_vec()),
            (central + 16, crc32(contents).to_le_bytes().to_vec()),
            (central + 24, (contents.len() as u32).to_le_bytes().to_vec()),
        ] {
            zip[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        zip
    }

    #[test]
    fn the_checksum_is_the_one_that_everybody_has() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn stored_and_deflated_files_are_read() {
        let contents = b"descriptor ".repeat(50);
        assert_eq!(unpack(&pack("d", &contents), 600), Some(contents.clone()));
        assert_eq!(unpack(&deflated(&contents), 600), Some(contents));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = deflated(&vec![0; 1 << 20]);
        assert!(bomb.len() < 2048);
        assert_eq!(unpack(&bomb, 16 << 10), None);
        let mut liar = bomb;
        let central = liar.len() - END_SIZE - 47;
        liar[central + 24..central + 28].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(unpack(&liar, 16 << 10), None, "it says it is small");
    }

    #[test]
    fn a_cut_off_or_damaged_file_is_none() {
        let zip = pack("d", b"contents");
        for len in 0..zip.len() {
            assert_eq!(unpack(&zip[..len], 100), None, "{len} bytes");
        }
        let mut damaged = zip;
        damaged[LOCAL_SIZE + 1] ^= 1;
        assert_eq!(unpack(&damaged, 100), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_to_unpack(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at: proptest::sample::Index, value: u8, ours: bool,
        ) {
            if ours {
                bytes = pack("d", &bytes);
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            prop_assert!(unpack(&bytes, 64).is_none_or(|contents| contents.len() <= 64));
        }
    }
}
