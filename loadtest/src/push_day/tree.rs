//! The tree of a push day: the files that the plan's world names, with bytes and repodata.

use anyhow::{Context, ensure};
use freshet::config::Scenario;
use freshet::plan::world::{File, World};
use freshet::repo::Sha256;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Of the first generation: its window is long over.
const LONG_AGO: Duration = Duration::from_secs(1_700_000_000);

/// The files in memory, for mirrors, and on disk, for the node.
pub struct Tree {
    root: PathBuf,
    repo: String,
    /// By path with a leading slash. repomd.xml is not among them.
    files: HashMap<String, Body>,
    /// repomd.xml before the push, and after it.
    repomds: [Bytes; 2],
}

/// A file's bytes.
#[derive(Clone)]
pub struct Body {
    pub bytes: Bytes,
    pub sha256: Sha256,
    /// Only the push has it.
    pub is_new: bool,
}

impl Tree {
    /// Makes it below `root`, and shows what was there before the push.
    pub fn make(root: &Path, scenario: &Scenario, world: &World) -> anyhow::Result<Self> {
        let repo = scenario.updates().path.as_str().to_owned();
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let mut files = HashMap::new();
        let new = world.pushed.iter().flat_map(|(package, drpm)| std::iter::once(package).chain(drpm));
        let packages = world.old.iter().map(|file| (file, false)).chain(new.map(|file| (file, true)));
        for (file, is_new) in packages {
            let mut bytes = vec![0; usize::try_from(file.size)?];
            random.fill(&mut bytes);
            files.insert(path(file), body(bytes, is_new));
        }
        let mut tree = Self { root: root.to_owned(), repo, files, repomds: [Bytes::new(), Bytes::new()] };
        for number in 0..2 {
            tree.repomds[number] = tree.describe(number, scenario.push.metadata, &mut random)?;
        }
        tree.write(false)?;
        tree.show(0)?;
        Ok(tree)
    }

    /// Publishes the push: files, metadata, and last repomd.xml, under its name at once.
    pub fn push(&self) -> anyhow::Result<()> {
        self.write(true)?;
        self.show(1)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// With a leading slash, without one at its end.
    pub fn repo(&self) -> String {
        format!("/{}", self.repo)
    }

    pub fn file(&self, path: &str) -> Option<&Body> {
        self.files.get(path)
    }

    /// repomd.xml before the push, or after it.
    pub fn repomd(&self, pushed: bool) -> &Bytes {
        &self.repomds[usize::from(pushed)]
    }

    /// Adds a generation's metadata, and gives the repomd.xml that names them.
    fn describe(&mut self, number: usize, bytes: u64, random: &mut fastrand::Rng) -> anyhow::Result<Bytes> {
        let primary = self.primary(number == 1).into_bytes();
        let rest = usize::try_from(bytes)?.checked_sub(primary.len());
        let rest = rest.context("push.metadata is less than primary.xml takes")?;
        let mut others = [vec![0; rest / 2], vec![0; rest - rest / 2]];
        others.iter_mut().for_each(|bytes| random.fill(bytes));
        let [filelists, other] = others;
        let mut repomd = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n\
             <revision>{}</revision>\n",
            number + 1
        );
        for (kind, bytes) in [("primary", primary), ("filelists", filelists), ("other", other)] {
            let body = body(bytes, number == 1);
            let below = format!("repodata/{}-{kind}.xml", body.sha256);
            let _ = writeln!(
                repomd,
                "<data type=\"{kind}\"><checksum type=\"sha256\">{}</checksum><location href=\"{below}\"/><size>{}</size></data>",
                body.sha256,
                body.bytes.len()
            );
            self.files.insert(format!("/{}/{below}", self.repo), body);
        }
        repomd.push_str("</repomd>\n");
        Ok(repomd.into())
    }

    /// primary.xml; drpms stand in it as packages do, since nobody here asks what they are.
    fn primary(&self, pushed: bool) -> String {
        let listed = |(path, body): &(&String, &Body)| {
            path.contains("/Packages/") && (pushed || !body.is_new) || path.contains("/drpms/") && pushed
        };
        let mut files: Vec<_> = self.files.iter().filter(listed).collect();
        files.sort_by_key(|(path, _)| path.as_str());
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" packages=\"{}\">\n",
            files.len()
        );
        for (path, body) in files {
            let below = &path[self.repo.len() + 2..];
            let _ = writeln!(
                xml,
                "<package type=\"rpm\"><name>{below}</name><checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\
                 <size package=\"{}\"/><location href=\"{below}\"/></package>",
                body.sha256,
                body.bytes.len()
            );
        }
        xml + "</metadata>\n"
    }

    fn write(&self, new: bool) -> anyhow::Result<()> {
        for (path, body) in self.files.iter().filter(|(_, body)| body.is_new == new) {
            let path = self.root.join(&path[1..]);
            fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
            fs::write(path, &body.bytes)?;
        }
        Ok(())
    }

    fn show(&self, number: usize) -> anyhow::Result<()> {
        let dir = self.root.join(&self.repo).join("repodata");
        let temporary = dir.join(".repomd.xml");
        fs::write(&temporary, &self.repomds[number])?;
        if number == 0 {
            fs::File::options().write(true).open(&temporary)?.set_modified(UNIX_EPOCH + LONG_AGO)?;
        }
        fs::rename(temporary, dir.join("repomd.xml"))?;
        ensure!(dir.join("repomd.xml").is_file());
        Ok(())
    }
}

/// With a leading slash.
pub fn path(file: &File) -> String {
    format!("/{}", file.path.as_str())
}

fn body(bytes: Vec<u8>, is_new: bool) -> Body {
    Body { sha256: Sha256::of(&bytes), bytes: bytes.into(), is_new }
}
