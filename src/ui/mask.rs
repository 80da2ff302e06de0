//! Addresses of machines, taken out of text. Pure.

use std::net::{IpAddr, SocketAddr};

/// The text without addresses, but for those that every machine has (loopback, unspecified).
pub(super) fn addresses(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(from) = rest.find(of_address) {
        let (before, tail) = rest.split_at(from);
        let end = tail.find(|c| !of_address(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        masked += before;
        // `feed` is a word, not the beginning of an address; so is what hangs on a letter.
        let hangs = before.ends_with(|c: char| c.is_ascii_alphanumeric())
            || after.starts_with(|c: char| c.is_ascii_alphanumeric());
        masked += &if hangs && !word.contains('.') {
            word.to_owned()
        } else {
            mask(word)
        };
        rest = after;
    }
    masked + rest
}

fn of_address(c: char) -> bool {
    c.is_ascii_hexdigit() || c == ':' || c == '.'
}

/// A word of an address's characters; a sentence's stop or colon may stand behind it.
fn mask(word: &str) -> String {
    let bare = word.trim_end_matches(['.', ':']);
    let tail = &word[bare.len()..];
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return format!("{}{tail}", shown(ip, bare));
    }
    match bare.parse::<SocketAddr>() {
        Ok(addr) => format!(
            "{}:{}{tail}",
            shown(addr.ip(), &addr.ip().to_string()),
            addr.port()
        ),
        Err(_) => word.to_owned(),
    }
}

fn shown(ip: IpAddr, text: &str) -> String {
    if ip.is_loopback() || ip.is_unspecified() {
        return text.to_owned();
    }
    MASK.to_owned()
}

/// What a CI's own masks look like.
const MASK: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked_and_ports_and_loopback_stay() {
        for (text, masked) in [
            ("to=192.0.2.7:4000 sent", "to=***:4000 sent"),
            ("at 203.0.113.9.", "at ***."),
            ("[2001:db8::7]:51820: no route", "[***]:51820: no route"),
            ("peer fe80::1%eth0", "peer ***%eth0"),
            ("::ffff:198.51.100.4,", "***,"),
            (
                "127.0.0.1:3632/4,lzo [::1]:9",
                "127.0.0.1:3632/4,lzo [::1]:9",
            ),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(addresses(text), masked);
        }
    }

    #[test]
    fn what_only_looks_like_an_address_stays() {
        for text in [
            "distmesh: worker deadbeef: 4 slots",
            "2026-11-24T21:25:00.123456Z DEBUG",
            "std::io::Error, face::",
            "gcc 12.2.0 took 1.5 s",
            "fed: cafe. dad:",
        ] {
            assert_eq!(addresses(text), text);
        }
    }
}
