//! Whether bytes may be an OpenPGP signature or key: to tell them from an error page, not to check them.

/// What armoured OpenPGP data begin with (RFC 9580, 6.2): signatures, signed messages, and keys alike.
const ARMOUR: &[u8] = b"-----BEGIN PGP ";
/// Text before the armour, as some tools write it, is looked through for so many bytes.
const PREAMBLE_BYTES: usize = 4096;

/// Armoured, or beginning with a packet that a signature or a key begins with (RFC 9580, 4.2 and 5).
#[must_use]
pub fn is_openpgp(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(PREAMBLE_BYTES)];
    let is_armoured =
        start.split(|byte| *byte == b'\n').any(|line| line.trim_ascii_start().starts_with(ARMOUR));
    is_armoured
        || bytes.first().is_some_and(|first| packet(*first).is_some_and(|tag| matches!(tag, 2 | 4 | 6)))
}

/// The type of the packet that begins with this byte: signature 2, one-pass signature 4, public key 6.
const fn packet(first: u8) -> Option<u8> {
    match first >> 6 {
        0b11 => Some(first & 0x3f),
        0b10 => Some((first >> 2) & 0x0f),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_is_no_signature() {
        for yes in [
            "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n",
            "pub  rsa4096 2019-05-03\n\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
        ] {
            assert!(is_openpgp(yes.as_bytes()), "{yes}");
        }
        for yes in [[0x88, 0x46], [0x89, 0x01], [0xc2, 0xc0], [0x99, 0x02], [0xc6, 0x01]] {
            assert!(is_openpgp(&yes), "{yes:x?}");
        }
        for no in
            ["", "<!DOCTYPE html>", "<html>", "404 not found", "{}", "\u{feff}<html>", "BEGIN PGP SIGNATURE"]
        {
            assert!(!is_openpgp(no.as_bytes()), "{no}");
        }
        for no in [&[0x1f, 0x8b][..], b"\xfd7zXZ", b"PK\x03\x04"] {
            assert!(!is_openpgp(no), "{no:x?}");
        }
        let late = format!("{}\n-----BEGIN PGP SIGNATURE-----\n", "x".repeat(PREAMBLE_BYTES));
        assert!(!is_openpgp(late.as_bytes()));
    }
}
