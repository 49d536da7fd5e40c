//! The directory at the cache's root: taken for one process, complete and durable before the first entry, and taken anew
//! when it vanished or another one appeared in its place.

use super::boot::{Epoch, State};
use super::files::Files;
use super::{Disk, PARTS};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The file below the root that is locked.
const LOCK: &str = "lock";
/// How often, and how far apart, the lock is tried at the start.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// The directory at the root, and how it stands.
#[derive(Debug)]
pub(super) struct Held<F: Files> {
    /// Keeps other processes away as long as it is open.
    lock: Arc<F::File>,
    state: State,
}

impl<F: Files> Disk<F> {
    pub(in crate::store) fn open_on(files: F, root: &Path, origin: String) -> io::Result<Self> {
        make_root(&files, root)?;
        let lock = first_lock(&files, root)?;
        let (objects, tmp) = (root.join("objects"), root.join("tmp"));
        make_directories(&files, root, &objects, &tmp)?;
        let state = take(&files, root, &objects, &tmp)?;
        Ok(Self {
            files: Arc::new(files),
            root: root.to_owned(),
            objects,
            tmp,
            origin,
            drafts: AtomicU64::new(0),
            held: Mutex::new(Held { lock: Arc::new(lock), state }),
            closed: RwLock::default(),
            concluding: Mutex::default(),
            #[cfg(test)]
            faults: Mutex::default(),
        })
    }

    /// Takes whatever directory is at the root now, and makes anew what is missing in it; whether there was need to.
    pub(in crate::store) fn restore(&self) -> io::Result<bool> {
        make_root(&*self.files, &self.root)?;
        let mut held = self.held();
        let replaced = !self.files.is_at(&held.lock, &self.root.join(LOCK));
        let lock = if replaced { Some(self.files.lock(&self.root.join(LOCK))?) } else { None };
        let made = make_directories(&*self.files, &self.root, &self.objects, &self.tmp)?;
        if let Some(lock) = lock {
            // The lock comes last: what fails before it is done again.
            let state = take(&*self.files, &self.root, &self.objects, &self.tmp)?;
            *held = Held { lock: Arc::new(lock), state };
        }
        Ok(made || replaced)
    }

    /// Notes that the directory's use came to an orderly end. Nothing is committed any more.
    pub(in crate::store) fn close(&self) -> io::Result<()> {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        self.note(State::ended)
    }

    /// The epoch whose entries are known to be good.
    pub(in crate::store) fn epoch(&self) -> Epoch {
        self.held().state.epoch
    }

    /// Whether no entry of another epoch is left.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.held().state.settled
    }

    /// Notes that no entry of another epoch than this one is left.
    pub(in crate::store) fn settle(&self, epoch: Epoch) -> io::Result<()> {
        if self.epoch() == epoch { self.note(State::settled) } else { Ok(()) }
    }

    /// `NotFound` where another directory, or none, is at the root by now.
    pub(super) fn is_in_place(&self) -> io::Result<()> {
        let lock = Arc::clone(&self.held().lock);
        if self.files.is_at(&lock, &self.root.join(LOCK)) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::NotFound, "another directory has taken the cache's place"))
    }

    fn note(&self, change: impl Fn(&State) -> State) -> io::Result<()> {
        self.is_in_place()?;
        let mut held = self.held();
        let state = change(&held.state);
        state.save(&*self.files, &self.root, &self.tmp)?;
        held.state = state;
        Ok(())
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held<F>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes what is missing of the directories, so that no entry's own directory can be lost after it; whether something was
/// missing.
fn make_directories<F: Files>(files: &F, root: &Path, objects: &Path, tmp: &Path) -> io::Result<bool> {
    let shards = (0..=u8::MAX).map(|shard| objects.join(format!("{shard:02x}")));
    let mut made = false;
    for directory in [objects.to_owned(), tmp.to_owned(), root.join(PARTS)].into_iter().chain(shards) {
        made |= make_dir(files, &directory)?;
    }
    // Also where nothing was missing: whoever made them may have died before this.
    files.sync_dir(objects)?;
    files.sync_dir(root)?;
    Ok(made)
}

/// Removes what was half written, and notes that the directory is in use: durably, before anything is committed to it.
fn take<F: Files>(files: &F, root: &Path, objects: &Path, tmp: &Path) -> io::Result<State> {
    for left in files.list(tmp)? {
        files.remove(&tmp.join(left))?;
    }
    // Where nothing tells one boot from another, each is taken for another.
    let boot = files.boot().unwrap_or_default();
    let mut state = State::resume(State::load(files, root), boot, Epoch::random());
    state.settled = state.settled || is_empty(files, objects)?;
    state.save(files, root, tmp)?;
    Ok(state)
}

fn is_empty<F: Files>(files: &F, objects: &Path) -> io::Result<bool> {
    for shard in files.list(objects)? {
        if !files.list(&objects.join(shard)).is_ok_and(|names| names.is_empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The lock, from a process that may just be ending.
fn first_lock<F: Files>(files: &F, root: &Path) -> io::Result<F::File> {
    for _ in 1..LOCK_TRIES {
        match files.lock(&root.join(LOCK)) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    files.lock(&root.join(LOCK))
}

/// Makes the root and what is missing above it, each made durable in turn.
fn make_root<F: Files>(files: &F, root: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| matches!(files.facts_at(path), Err(e) if e.kind() == ErrorKind::NotFound);
    let missing: Vec<&Path> = root.ancestors().take_while(is_missing).collect();
    for directory in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        make_dir(files, directory)?;
        let above = directory.parent().filter(|path| !path.as_os_str().is_empty());
        files.sync_dir(above.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Whether it had to be made.
fn make_dir<F: Files>(files: &F, path: &Path) -> io::Result<bool> {
    match files.make_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}
