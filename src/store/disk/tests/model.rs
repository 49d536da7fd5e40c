//! A file system that keeps what was synced, and of the rest whatever it likes.
//!
//! As weak as ext4 and XFS may be ("All File Systems Are Not Created Equal", OSDI '14), and a little weaker. At a crash
//!
//! - each sector that was written since the file's last sync holds what it held then, or after any of the writes; where
//!   the file had none at that sync, also zeros or garbage;
//! - the file has any of the lengths that it had since then, and any of the times;
//! - each name in a directory names what it named at the directory's last sync, or anything that it named since: of a
//!   rename, either half may be lost.
//!
//! A sync that fails may have lost what it should have written, and the next one doesn't notice. Where the disk lies, a sync
//! makes nothing durable at all.

use crate::store::disk::files::{Facts, Files, Modified, Seal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

type Id = usize;
type Names = BTreeMap<OsString, Versions<Option<Id>>>;

/// The disk, and the kernel above it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    world: Arc<Mutex<World>>,
    /// Handles of an earlier boot, or of a process that was killed, do nothing.
    life: u32,
}

/// What syncs are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncs {
    Kept,
    /// A disk that says "done" and has it in its own cache.
    Lied,
    /// Of files only: `commit` without its `sync`.
    OfFilesLied,
    /// Of directories only: `commit` without its `sync_dir`.
    OfDirectoriesLied,
}

#[derive(Debug)]
struct World {
    nodes: Vec<Node>,
    syncs: Syncs,
    boots: u32,
    life: u32,
    /// So many more operations until the power fails.
    power: Option<u32>,
    /// So many more syncs of files until one fails.
    failing_sync: Option<u32>,
    random: fastrand::Rng,
}

#[derive(Debug)]
enum Node {
    File(Content),
    Dir(Names),
}

/// What is durable, and what was there since; the last is what is there now.
#[derive(Clone, Debug)]
struct Versions<T>(Vec<T>);

impl<T: Clone> Versions<T> {
    fn now(&self) -> &T {
        self.0.last().expect("never empty")
    }

    fn sync(&mut self) {
        self.0 = vec![self.now().clone()];
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
        self.0 = vec![self.0[random.usize(..self.0.len())].clone()];
    }
}

#[derive(Debug)]
struct Content {
    sectors: Vec<Versions<Option<Vec<u8>>>>,
    length: Versions<u64>,
    modified: Versions<Modified>,
    /// A sync failed: later ones write nothing of what is here now.
    lost: bool,
}

impl Content {
    fn new() -> Self {
        let modified = Modified { seconds: 0, nanoseconds: 999_999_999 };
        Self {
            sectors: Vec::new(),
            length: Versions(vec![0]),
            modified: Versions(vec![modified]),
            lost: false,
        }
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        while self.sectors.len() * SECTOR < end {
            self.sectors.push(Versions(vec![None]));
        }
        for (i, byte) in bytes.iter().enumerate() {
            let (sector, within) = ((at + i) / SECTOR, (at + i) % SECTOR);
            let versions = &mut self.sectors[sector];
            if i == 0 || within == 0 {
                let now = versions.now().clone().unwrap_or_else(|| vec![0; SECTOR]);
                versions.0.push(Some(now));
            }
            let now = versions.0.last_mut().expect("never empty").as_mut().expect("just pushed");
            now[within] = *byte;
        }
        let length = *self.length.now();
        self.length.0.push(length.max(end as u64));
        // What a write does to the time is of no interest here; the time set afterwards is.
        self.modified.0.push(Modified { seconds: 1, nanoseconds: 999_999_998 });
    }

    fn read(&self, bytes: &mut [u8], at: usize) -> io::Result<()> {
        if at + bytes.len() > usize::try_from(*self.length.now()).unwrap() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            let (sector, within) = ((at + i) / SECTOR, (at + i) % SECTOR);
            *byte = self.sectors[sector].now().as_ref().map_or(0, |sector| sector[within]);
        }
        Ok(())
    }

    fn sync(&mut self) {
        if !self.lost {
            self.sectors.iter_mut().for_each(Versions::sync);
            self.length.sync();
            self.modified.sync();
        }
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
        for sector in &mut self.sectors {
            let was_empty = sector.0[0].is_none();
            sector.crash(random);
            if sector.now().is_none() && was_empty && random.bool() {
                *sector = Versions(vec![Some((0..SECTOR).map(|_| random.u8(..)).collect())]);
            }
        }
        self.length.crash(random);
        self.modified.crash(random);
        self.lost = false;
    }
}

impl Machine {
    pub(super) fn new(seed: u64, syncs: Syncs) -> Self {
        let world = World {
            nodes: vec![Node::Dir(BTreeMap::new())],
            syncs,
            boots: 1,
            life: 0,
            power: None,
            failing_sync: None,
            random: fastrand::Rng::with_seed(seed),
        };
        Self { world: Arc::new(Mutex::new(world)), life: 0 }
    }

    /// The power fails after so many more operations.
    pub(super) fn lose_power_after(&self, operations: u32) {
        self.world().power = Some(operations);
    }

    /// The sync of a file fails after so many others.
    pub(super) fn fail_a_sync_after(&self, syncs: u32) {
        self.world().failing_sync = Some(syncs);
    }

    pub(super) fn has_power(&self) -> bool {
        self.world().power != Some(0)
    }

    /// The process is gone, and so are its handles.
    pub(super) fn kill(&self) -> Self {
        let mut world = self.world();
        world.life += 1;
        world.failing_sync = None;
        Self { world: Arc::clone(&self.world), life: world.life }
    }

    /// The power fails (again), and comes back.
    pub(super) fn reboot(&self) -> Self {
        {
            let mut world = self.world();
            let World { nodes, random, .. } = &mut *world;
            for node in nodes {
                match node {
                    Node::File(content) => content.crash(random),
                    Node::Dir(names) => names.values_mut().for_each(|name| name.crash(random)),
                }
            }
            world.boots += 1;
            world.power = None;
        }
        self.kill()
    }

    /// What was written long ago is durable, even where syncs are lies.
    pub(super) fn settle(&self) {
        for node in &mut self.world().nodes {
            match node {
                Node::File(content) => content.sync(),
                Node::Dir(names) => names.values_mut().for_each(Versions::sync),
            }
        }
    }

    /// Flips a bit of a file's sector, durably: the disk rots.
    pub(super) fn rot(&self, path: &Path, at: usize) {
        let mut world = self.world();
        let id = world.find(path).unwrap();
        let Node::File(content) = &mut world.nodes[id] else { panic!("a directory") };
        for sector in content.sectors[at / SECTOR].0.iter_mut().flatten() {
            sector[at % SECTOR] ^= 1;
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// One operation, unless the power fails before it.
    fn operate<T>(&self, operation: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        if world.life != self.life || world.power == Some(0) {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut world.power {
            *left -= 1;
        }
        operation(&mut world)
    }
}

impl World {
    fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = 0;
        for name in path.strip_prefix("/").unwrap() {
            let Node::Dir(names) = &self.nodes[id] else { return Err(ErrorKind::NotADirectory.into()) };
            id = names.get(name).and_then(|name| *name.now()).ok_or(ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    /// The names beside `path`, and the last part of it.
    fn names(&mut self, path: &Path) -> io::Result<(&mut Names, OsString)> {
        let id = self.find(path.parent().unwrap())?;
        match &mut self.nodes[id] {
            Node::Dir(names) => Ok((names, path.file_name().unwrap().to_owned())),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn point(&mut self, path: &Path, to: Option<Id>) -> io::Result<()> {
        let (names, name) = self.names(path)?;
        names.entry(name).or_insert(Versions(vec![None])).0.push(to);
        Ok(())
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<Id> {
        match self.find(path) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let id = self.nodes.len();
                self.point(path, Some(id))?;
                self.nodes.push(node);
                Ok(id)
            }
            Err(error) => Err(error),
        }
    }

    fn content(&mut self, id: Id) -> io::Result<&mut Content> {
        match &mut self.nodes[id] {
            Node::File(content) => Ok(content),
            Node::Dir(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn facts(&self, id: Id) -> Facts {
        match &self.nodes[id] {
            Node::File(content) => Facts {
                length: *content.length.now(),
                allocated: *content.length.now(),
                is_dir: false,
                modified: *content.modified.now(),
                accessed: 0,
                seal: Seal::default(),
            },
            Node::Dir(_) => Facts {
                length: 0,
                allocated: 0,
                is_dir: true,
                modified: Modified::default(),
                accessed: 0,
                seal: Seal::default(),
            },
        }
    }
}

impl Files for Machine {
    type File = Id;

    fn create_new(&self, path: &Path) -> io::Result<Id> {
        self.operate(|world| world.make(path, Node::File(Content::new())))
    }

    fn open(&self, path: &Path) -> io::Result<Id> {
        self.operate(|world| world.find(path))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Id> {
        self.open(path)
    }

    fn read_exact_at(&self, file: &Id, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.operate(|world| world.content(*file)?.read(bytes, usize::try_from(at).unwrap()))
    }

    fn write_all_at(&self, file: &Id, bytes: &[u8], at: u64) -> io::Result<()> {
        self.operate(|world| {
            world.content(*file)?.write(bytes, usize::try_from(at).unwrap());
            Ok(())
        })
    }

    fn truncate(&self, file: &Id, length: u64) -> io::Result<()> {
        self.operate(|world| {
            let content = world.content(*file)?;
            let shorter = length.min(*content.length.now());
            content.length.0.push(shorter);
            Ok(())
        })
    }

    fn reserve(&self, _: &Id, _: u64, _: u64) -> io::Result<()> {
        self.operate(|_| Ok(()))
    }

    fn facts(&self, file: &Id) -> io::Result<Facts> {
        self.operate(|world| Ok(world.facts(*file)))
    }

    fn set_modified(&self, file: &Id, modified: Modified) -> io::Result<()> {
        self.operate(|world| {
            world.content(*file)?.modified.0.push(modified);
            Ok(())
        })
    }

    fn sync(&self, file: &Id) -> io::Result<()> {
        self.operate(|world| {
            match &mut world.failing_sync {
                Some(0) => {
                    world.failing_sync = None;
                    world.content(*file)?.lost = true;
                    return Err(io::Error::other("EIO"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            if matches!(world.syncs, Syncs::Kept | Syncs::OfDirectoriesLied) {
                world.content(*file)?.sync();
            }
            Ok(())
        })
    }

    fn facts_at(&self, path: &Path) -> io::Result<Facts> {
        self.operate(|world| Ok(world.facts(world.find(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|world| {
            let id = world.find(from)?;
            world.names(to)?;
            world.point(to, Some(id))?;
            world.point(from, None)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            world.find(path)?;
            world.point(path, None)
        })
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| world.make(path, Node::Dir(BTreeMap::new())).map(drop))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            let id = world.find(path)?;
            let kept = matches!(world.syncs, Syncs::Kept | Syncs::OfFilesLied);
            match &mut world.nodes[id] {
                Node::Dir(names) if kept => names.values_mut().for_each(Versions::sync),
                Node::Dir(_) => {}
                Node::File(_) => return Err(ErrorKind::NotADirectory.into()),
            }
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.operate(|world| {
            let id = world.find(path)?;
            let Node::Dir(names) = &world.nodes[id] else { return Err(ErrorKind::NotADirectory.into()) };
            Ok(names.iter().filter(|(_, id)| id.now().is_some()).map(|(name, _)| name.clone()).collect())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Id> {
        self.operate(|world| match world.find(path) {
            Ok(id) => Ok(id),
            Err(_) => world.make(path, Node::File(Content::new())),
        })
    }

    fn is_at(&self, file: &Id, path: &Path) -> bool {
        self.operate(|world| Ok(world.find(path)? == *file)).unwrap_or(false)
    }

    fn boot(&self) -> io::Result<String> {
        self.operate(|world| Ok(world.boots.to_string()))
    }
}
