//! What is done to the node: an origin without manners, purges, and a disk that lost its power.

use super::super::support::client::Connection;
use super::super::support::origin::{Act, Origin};
use super::load::Ground;
use super::tree::{Entry, Kind};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

impl Ground<'_> {
    /// The origin's moods, until it is over; then it is well.
    pub fn trouble(&self, origin: &mut Origin, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !self.is_over() {
            thread::sleep(Duration::from_millis(rng.u64(20..300)));
            let file = &self.tree.files[rng.usize(..self.tree.files.len())];
            match rng.u8(..100) {
                0..45 => origin.act(&file.path, [mood(&mut rng, file)]),
                45..75 => origin.act(&file.path, []),
                75..80 => {
                    origin.act("*", [Act::Throttle(rng.u64(1..20) << 20)]);
                    thread::sleep(Duration::from_millis(rng.u64(100..500)));
                    origin.act("*", []);
                }
                80..97 => {
                    let changing: Vec<&Entry> = self.tree.changing().collect();
                    self.tree.publish(changing[rng.usize(..changing.len())]);
                    self.tally.published.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    origin.kill();
                    thread::sleep(Duration::from_millis(rng.u64(200..1200)));
                    origin.revive();
                }
            }
            // Those that hang, hang for a while only.
            origin.release("*");
            origin.forget();
        }
        self.tree.files.iter().for_each(|file| origin.act(&file.path, []));
        origin.act("*", []);
    }

    /// Purges now and then, until it is over.
    pub fn operator(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !self.is_over() {
            thread::sleep(Duration::from_millis(rng.u64(50..1200)));
            let file = &self.tree.files[rng.usize(..self.tree.files.len())];
            let path = if rng.bool() {
                let changing: Vec<&Entry> = self.tree.changing().collect();
                &changing[rng.usize(..changing.len())].path
            } else {
                &file.path
            };
            let (prefix, mode) = (rng.u8(..4) == 0, if rng.bool() { "hard" } else { "soft" });
            let (field, path) = if prefix {
                ("prefix", path.rsplit_once('/').map_or("", |(directory, _)| directory))
            } else {
                ("path", path.as_str())
            };
            let is_covered = |file: &&Entry| {
                if prefix { file.path.starts_with(path) } else { file.path == path }
            };
            let covered: Vec<(&Entry, u16)> =
                self.tree.changing().filter(is_covered).map(|file| (file, file.published())).collect();
            let target = format!("/api/v1/purge?{field}=/{path}&mode={mode}");
            let Ok(mut connection) = Connection::open(self.admin) else { continue };
            // The node may be killed at any time.
            let Ok(answer) = connection.request("POST", &target, &[]) else { continue };
            match answer.status {
                200 | 202 => {}
                503 => continue,
                other => return self.fail(format!("{other} for {target}: {}", answer.text())),
            }
            self.tally.purges.fetch_add(1, Ordering::Relaxed);
            if mode == "hard" && answer.text().replace(' ', "").contains("\"persisted\":true") {
                covered.iter().for_each(|(file, version)| file.purged(*version));
            }
        }
    }
}

fn mood(rng: &mut fastrand::Rng, file: &Entry) -> Act {
    let at = rng.usize(..file.bytes as usize);
    match rng.u8(..8) {
        0 => Act::Throttle(rng.u64(1..10) << 20),
        1 | 2 => Act::Truncate(at),
        3 | 4 => Act::Reset(at),
        5 => Act::Status([500, 503][rng.usize(..2)]),
        6 => Act::NoRanges,
        // Of what isn't listed nobody could tell.
        _ if file.kind == Kind::Listed && rng.bool() => Act::Corrupt(at),
        _ if file.kind == Kind::Listed => Act::Length(file.bytes as usize + 1),
        _ => Act::Hang,
    }
}

/// The cache's directory is as a machine left it that lost its power, on a disk that forgot some of what it had reported as
/// written; and there is another boot now. How many files are damaged.
pub fn lose_power(cache: &Path, rng: &mut fastrand::Rng) -> usize {
    let state = cache.join("boot");
    let text = fs::read_to_string(&state).expect("the directory was in use");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    assert!(text.contains("\"clean\":false") && text.contains(boot.trim()), "{text}");
    fs::write(state, text.replace(boot.trim(), "another")).expect("another boot");
    fs::write(cache.join("tmp/left"), "behind").expect("a file");
    let mut damaged = 0;
    for file in files(cache) {
        if rng.u8(..) < 60 {
            damage(&file, rng);
            damaged += 1;
        }
    }
    damaged
}

/// All entries, parts and what is below `tmp`.
pub fn files(cache: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![cache.join("objects"), cache.join("parts"), cache.join("tmp")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("the directory") {
            let path = entry.expect("its entry").path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Not a time changes. The file is another one afterwards: what sendfile has put into a socket are the pages of the first, and
/// a client that reads late, after the node has died, would see them change.
fn damage(path: &Path, rng: &mut fastrand::Rng) {
    let copy = path.with_extension("damaged");
    fs::copy(path, &copy).expect("it can be read");
    let modified = fs::metadata(path).and_then(|facts| facts.modified()).expect("its time");
    let file = File::options().read(true).write(true).open(&copy).expect("it can be damaged");
    let facts = file.metadata().expect("its facts");
    let length = facts.len().max(1);
    let at = rng.u64(..length);
    match rng.u8(..3) {
        0 => {
            let mut byte = [0];
            let _ = file.read_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 1 << rng.u8(..8)], at).expect("another byte");
        }
        1 => file.set_len(at).expect("a shorter file"),
        _ => {
            let start = at / 4096 * 4096;
            let zeros = vec![0; (length - start).min(4096) as usize];
            file.write_all_at(&zeros, start).expect("zeros");
        }
    }
    file.set_modified(modified).expect("its time");
    fs::rename(copy, path).expect("it takes the other's place");
}
