//! Digests of every kind that repodata names: what tells one file's bytes from another's.

use super::checksum::Sha256;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA224, SHA256, SHA384, SHA512};
use md5::{Digest as _, Md5};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};

/// The longest digest, in bytes.
const MAX_BYTES: usize = 64;

/// How a digest is made; the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Collisions cost seconds (RFC 6151).
    Md5,
    /// Collisions have been shown (2017).
    Sha1,
    /// Rare.
    Sha224,
    /// Nearly all repos.
    Sha256,
    /// Rare.
    Sha384,
    /// `createrepo_c -s sha512`.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// By its name in repodata, in which `sha` is SHA-1, or in a list of checksums.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("sha") {
            return Some(Self::Sha1);
        }
        Self::ALL.into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name()))
    }

    /// As repodata and metalinks write it today.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// As standards and people write it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    /// Length of a digest in bytes. No two algorithms have the same, so that a length names the algorithm.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Whether other bytes of the same digest can be made. Such a digest shows an accident, and no attack.
    #[must_use]
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }
}

/// A digest and its algorithm: two digests are the same only if both are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zeros follow the digest.
    raw: [u8; MAX_BYTES],
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(bytes);
        digester.finish()
    }

    /// Whether it is the digest of `bytes`.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Self::of(self.algorithm, bytes) == *self
    }

    /// Of exactly so many bytes as the algorithm's digests have.
    pub(super) fn from_raw(bytes: &[u8]) -> Option<Self> {
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.bytes() == bytes.len())?;
        let mut raw = [0; MAX_BYTES];
        raw[..bytes.len()].copy_from_slice(bytes);
        Some(Self { algorithm, raw })
    }

    /// From hex digits, exactly as many as the algorithm's digests have.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let raw = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.trim().as_bytes()).ok()?;
        Self::from_raw(&raw).filter(|digest| digest.algorithm == algorithm)
    }

    /// How it was made.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw[..self.algorithm.bytes()]
    }

    /// Lower-case hex, as repodata writes it.
    #[must_use]
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(self.as_bytes())
    }

    /// Base64 with padding, as `Repr-Digest` carries it (RFC 9530).
    #[must_use]
    pub fn base64(&self) -> String {
        data_encoding::BASE64.encode(self.as_bytes())
    }

    /// The digest as a SHA-256, if it is one.
    #[must_use]
    pub fn sha256(&self) -> Option<Sha256> {
        <[u8; 32]>::try_from(self.as_bytes()).ok().map(Sha256::from)
    }
}

impl From<Sha256> for Digest {
    fn from(sha256: Sha256) -> Self {
        let mut raw = [0; MAX_BYTES];
        raw[..32].copy_from_slice(sha256.as_bytes());
        Self { algorithm: Algorithm::Sha256, raw }
    }
}

/// The raw digest alone: its length tells the rest.
impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Digest {
    /// `sha512:` and the digest in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    /// With the first 12 digits: enough to tell digests apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), &self.hex()[..12])
    }
}

/// As its raw bytes, whose number names the algorithm.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a digest")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Digest, E> {
                Digest::from_raw(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Raw)
    }
}

/// The digest of bytes that arrive in pieces.
#[derive(Clone)]
pub struct Digester {
    algorithm: Algorithm,
    state: State,
}

#[derive(Clone)]
enum State {
    Sha(Context),
    Md5(Md5),
}

impl Digester {
    /// Of no bytes yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let sha = match algorithm {
            Algorithm::Md5 => return Self { algorithm, state: State::Md5(Md5::new()) },
            Algorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha224 => &SHA224,
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha384 => &SHA384,
            Algorithm::Sha512 => &SHA512,
        };
        Self { algorithm, state: State::Sha(Context::new(sha)) }
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha(context) => context.update(bytes),
            State::Md5(md5) => md5.update(bytes),
        }
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut raw = [0; MAX_BYTES];
        let mut put = |digest: &[u8]| raw[..digest.len()].copy_from_slice(digest);
        match self.state {
            State::Sha(context) => put(context.finish().as_ref()),
            State::Md5(md5) => put(&md5.finalize()),
        }
        Digest { algorithm: self.algorithm, raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Of `abc`: FIPS 180-4's examples, and RFC 1321's.
    const OF_ABC: [(Algorithm, &str); 6] = [
        (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Algorithm::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Algorithm::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Algorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ];

    #[test]
    fn known_answers() {
        for (algorithm, hex) in OF_ABC {
            let digest = Digest::of(algorithm, b"abc");
            assert_eq!((digest.hex().as_str(), digest.algorithm()), (hex, algorithm));
            assert_eq!(Digest::from_hex(algorithm, &hex.to_uppercase()), Some(digest));
            assert_eq!(digest.to_string(), format!("{}:{hex}", algorithm.name()));
            assert!(digest.is_of(b"abc") && !digest.is_of(b"abd"));
            assert_eq!(digest.sha256().is_some(), algorithm == Algorithm::Sha256);
            for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert_eq!(Digest::from_hex(other, hex), None, "{hex} is no {other:?}");
            }
            assert_eq!(Digest::from_hex(algorithm, &hex[1..]), None);
        }
        assert_eq!(Digest::from(Sha256::of(b"abc")), Digest::of(Algorithm::Sha256, b"abc"));
    }

    #[test]
    fn names_are_those_of_repodata() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::named("sha"), Some(Algorithm::Sha1));
        assert_eq!(Algorithm::named("SHA512"), Some(Algorithm::Sha512));
        for unknown in ["", "sha3-256", "sha2", "md", "crc32"] {
            assert_eq!(Algorithm::named(unknown), None);
        }
        let weak: Vec<_> = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_weak()).collect();
        assert_eq!(weak, [Algorithm::Md5, Algorithm::Sha1]);
    }

    #[test]
    fn lengths_name_the_algorithm() {
        let lengths: HashSet<usize> = Algorithm::ALL.into_iter().map(Algorithm::bytes).collect();
        assert_eq!(lengths.len(), Algorithm::ALL.len());
        assert_eq!(lengths.into_iter().max(), Some(MAX_BYTES));
    }

    proptest! {
        #[test]
        fn kept_over_a_restart(body: Vec<u8>, at in 0..6_usize, cut: prop::sample::Index) {
            let digest = Digest::of(Algorithm::ALL[at], &body);
            let bytes = postcard::to_stdvec(&digest).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Digest>(&bytes), Ok(digest));
            let mut digester = Digester::new(Algorithm::ALL[at]);
            let (first, second) = body.split_at(cut.index(body.len() + 1));
            digester.update(first);
            digester.update(second);
            prop_assert_eq!(digester.finish(), digest);
            prop_assert!(postcard::from_bytes::<Digest>(&[&[17], &[0; 17][..]].concat()).is_err());
        }
    }
}
