//! The tree of the torture: files whose every eight bytes tell which file, version and place they belong to, so that one
//! wrong byte is seen wherever it turns up.

use super::super::support::config;
use super::super::support::repo::REPO;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Files of mixed sizes, from 1 KiB to 6 MiB, evenly by orders of magnitude.
const SMALLER: u64 = 300;
/// Of these, and of the others below.
const LARGE: [(u64, Kind); 6] = [
    (40 * MIB, Kind::Listed),
    (24 * MIB, Kind::Unlisted),
    (20 * MIB, Kind::Changing),
    (3 * MIB, Kind::Changing),
    (200 * KIB, Kind::Changing),
    (5 * KIB, Kind::Changing),
];

/// What the node knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By its SHA-256.
    Listed,
    /// By what the origin says.
    Unlisted,
    /// The same, and it is replaced now and then.
    Changing,
}

/// A file of the tree.
pub struct Entry {
    id: u16,
    /// Without a leading slash.
    pub path: String,
    /// Of its first version; later ones are longer.
    pub bytes: u64,
    pub kind: Kind,
    sha256: String,
    /// The latest version that the origin may show, and the one that it shows at least.
    announced: AtomicU16,
    published: AtomicU16,
    /// What is older was purged.
    floor: AtomicU16,
}

/// The tree, on disk.
pub struct Tree {
    root: PathBuf,
    pub files: Vec<Entry>,
}

impl Tree {
    /// Writes it below `root`, with the repodata of what is listed.
    pub fn make(root: &Path) -> Self {
        let smaller = (0..SMALLER).map(|at| {
            let share = at as f64 / (SMALLER - 1) as f64;
            let bytes = (KIB as f64 * (6.0 * KIB as f64).powf(share)) as u64;
            (bytes, if at % 3 == 0 { Kind::Unlisted } else { Kind::Listed })
        });
        let mut files = Vec::new();
        for (id, (bytes, kind)) in (0..).zip(smaller.chain(LARGE)) {
            let path = match kind {
                Kind::Listed => format!("{REPO}/Packages/{id}-1.0-1.noarch.rpm"),
                Kind::Unlisted => format!("pub/{}/{id}.iso", id % 4),
                Kind::Changing => format!("pub/changing/{id}.img"),
            };
            let zero = || AtomicU16::new(0);
            let (announced, published, floor) = (zero(), zero(), zero());
            let mut file =
                Entry { id, path, bytes, kind, sha256: String::new(), announced, published, floor };
            let body = file.body(0);
            if kind == Kind::Listed {
                file.sha256 = hex(&body);
            }
            put(root, &file.path, &body, file.modified(0));
            files.push(file);
        }
        let tree = Self { root: root.to_owned(), files };
        tree.list();
        tree
    }

    pub fn changing(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter(|file| file.kind == Kind::Changing)
    }

    /// Replaces a file by its next version, at once.
    pub fn publish(&self, file: &Entry) {
        let next = file.announced.fetch_add(1, Ordering::SeqCst) + 1;
        put(&self.root, &file.path, &file.body(next), file.modified(next));
        file.published.store(next, Ordering::SeqCst);
    }

    /// Repodata as createrepo_c would write it, as far as a node reads it.
    fn list(&self) {
        let listed = self.files.iter().filter(|file| file.kind == Kind::Listed);
        let mut primary = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <metadata xmlns=\"http://linux.duke.edu/metadata/common\" packages=\"COUNT\">\n",
        );
        let mut count = 0;
        for file in listed {
            count += 1;
            let Entry { id, bytes, sha256, path, .. } = file;
            let href = &path[REPO.len() + 1..];
            writeln!(
                primary,
                "<package type=\"rpm\"><name>p{id}</name><arch>noarch</arch>\
                 <version epoch=\"0\" ver=\"1.0\" rel=\"1\"/>\
                 <checksum type=\"sha256\" pkgid=\"YES\">{sha256}</checksum>\
                 <size package=\"{bytes}\" installed=\"1\" archive=\"1\"/>\
                 <location href=\"{href}\"/></package>"
            )
            .expect("a String takes it");
        }
        let primary = primary.replace("COUNT", &count.to_string()) + "</metadata>\n";
        let (sha256, length) = (hex(primary.as_bytes()), primary.len());
        let repomd = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><revision>1</revision>\n\
             <data type=\"primary\"><checksum type=\"sha256\">{sha256}</checksum>\
             <location href=\"repodata/{sha256}-primary.xml\"/><timestamp>1700000000</timestamp>\
             <size>{length}</size></data></repomd>\n"
        );
        let modified = modified(0);
        put(&self.root, &format!("{REPO}/repodata/{sha256}-primary.xml"), primary.as_bytes(), modified);
        put(&self.root, &format!("{REPO}/repodata/repomd.xml"), repomd.as_bytes(), modified);
    }

    /// The repo's table for a node's configuration.
    pub fn repo() -> String {
        config::updates("24h")
    }
}

impl Entry {
    /// The version that the origin shows, at least.
    pub fn published(&self) -> u16 {
        self.published.load(Ordering::SeqCst)
    }

    /// What is older than `version` may not be served any more.
    pub fn purged(&self, version: u16) {
        self.floor.fetch_max(version, Ordering::SeqCst);
    }

    /// The oldest version that may be served to who asks now.
    pub fn floor(&self) -> u16 {
        self.floor.load(Ordering::SeqCst)
    }

    pub fn length(&self, version: u16) -> u64 {
        self.bytes + 3 * u64::from(version)
    }

    /// As the node gives it.
    pub fn etag(&self, version: u16) -> String {
        match self.kind {
            Kind::Listed => format!("\"{}\"", &self.sha256[..32]),
            Kind::Unlisted | Kind::Changing => {
                let modified = self.modified(version).duration_since(SystemTime::UNIX_EPOCH).expect("later");
                format!("\"{:x}-{:x}\"", modified.as_millis(), self.length(version))
            }
        }
    }

    /// The version that has this ETag, if the origin can have shown it to who asked when `floor` was in force.
    pub fn version(&self, etag: Option<&str>, floor: u16) -> Result<u16, String> {
        let known = 0..=self.announced.load(Ordering::SeqCst);
        let version = known.rev().find(|version| etag == Some(&self.etag(*version)));
        let version = version.ok_or_else(|| format!("no version has the ETag {etag:?}"))?;
        if version < floor {
            return Err(format!("version {version}, although {floor} was there before a purge"));
        }
        Ok(version)
    }

    /// Compares bytes from `offset` on with those of `version`.
    pub fn check(&self, version: u16, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let word = |at: u64| self.word(version, at / 8).to_be_bytes();
        let head = ((8 - offset % 8) % 8).min(bytes.len() as u64) as usize;
        let (odd, even) = bytes.split_at(head);
        let start = (offset % 8) as usize;
        let mut at = offset + head as u64;
        let mut same = odd == &word(offset)[start..][..head];
        let mut words = even.chunks_exact(8);
        for chunk in &mut words {
            same &= chunk == word(at);
            at += 8;
        }
        let rest = words.remainder();
        same &= rest == &word(at)[..rest.len()];
        if same { Ok(()) } else { Err(self.difference(version, offset, bytes)) }
    }

    /// Whether these bytes are wrong as the origin's lies are: one byte of a listed file, all bits of it.
    pub fn may_be_lied(&self, version: u16, offset: u64, bytes: &[u8]) -> bool {
        let mut wrong = (offset..).zip(bytes).filter(|(at, byte)| self.byte(version, *at) != **byte);
        let is_lie = wrong.next().is_some_and(|(at, byte)| self.byte(version, at) ^ 0xff == *byte);
        self.kind == Kind::Listed && is_lie && wrong.next().is_none()
    }

    fn byte(&self, version: u16, at: u64) -> u8 {
        self.word(version, at / 8).to_be_bytes()[(at % 8) as usize]
    }

    fn difference(&self, version: u16, offset: u64, bytes: &[u8]) -> String {
        let wrong = (offset..).zip(bytes).filter(|(at, byte)| self.byte(version, *at) != **byte);
        let wrong: Vec<u64> = wrong.map(|(at, _)| at).collect();
        let first = wrong[0] / 8 * 8;
        let found = bytes.get(first.saturating_sub(offset) as usize..).and_then(|bytes| bytes.get(..8));
        let found = found.map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight")));
        let tells = found.map(|word| {
            format!(
                "file {}, version {}, offset {}",
                word >> 48,
                word >> 32 & 0xffff,
                (word & 0xffff_ffff) * 8
            )
        });
        format!(
            "{} wrong bytes from {} on, where file {}, version {version} was to be: they tell {}",
            wrong.len(),
            wrong[0],
            self.id,
            tells.unwrap_or_default(),
        )
    }

    fn word(&self, version: u16, at: u64) -> u64 {
        u64::from(self.id) << 48 | u64::from(version) << 32 | at
    }

    fn body(&self, version: u16) -> Vec<u8> {
        let length = self.length(version);
        let words = (0..length.div_ceil(8)).flat_map(|at| self.word(version, at).to_be_bytes());
        words.take(length as usize).collect()
    }

    fn modified(&self, version: u16) -> SystemTime {
        modified(version)
    }
}

fn modified(version: u16) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 100 * u64::from(version))
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

/// A reader sees the old file or the new one.
fn put(root: &Path, path: &str, body: &[u8], modified: SystemTime) {
    let (path, draft) = (root.join(path), root.join("draft"));
    fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("the directory");
    fs::write(&draft, body).expect("the file");
    File::options().write(true).open(&draft).and_then(|file| file.set_modified(modified)).expect("its time");
    fs::rename(draft, path).expect("a rename");
}
