//! Proofs on disk, so that a restart needn't ask every mirror for every file again.
//!
//! One JSON document, replaced as a whole. Generations are named by the SHA-256 of their repomd.xml, since sequences
//! mean something on one node only. What can't be read or no longer fits costs a new check, never a wrong proof.

use super::families::{Both, Family};
use crate::clock::{self, Timestamp};
use crate::policy::{Exceptions, Fault, Group, Pair, Proof, Repos};
use crate::repo::{History, Sha256};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

const NAME: &str = "proofs.json";
const TEMPORARY: &str = "proofs.json.new";
/// 1 had one proof for both families.
const VERSION: u32 = 2;

/// All proofs of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    version: u32,
    proofs: Vec<Record>,
    /// Those with exceptions, where an earlier version, which knows of none, doesn't find them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    excepting: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The mirror's name; it counts only while the URL is the same.
    mirror: String,
    url: String,
    /// [`Family::word`]: over which it was proven.
    over: String,
    /// The repo's id.
    repo: String,
    /// The proven generation.
    generation: String,
    /// [`Proof::shown`], where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<String>,
    verified: Timestamp,
    /// [`Pair::since`]; earlier versions didn't write it.
    #[serde(default)]
    since: Timestamp,
    /// [`Group::pattern`] of those that the mirror leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// The files that it lacks, and of these the ones that the origin lacks as well; below the repo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lacks: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    origin_lacks: Vec<String>,
}

impl Document {
    /// The proofs of these mirrors.
    pub(super) fn of(mirrors: &[Both], repos: &Repos) -> Self {
        let (mut proofs, mut excepting) = (Vec::new(), Vec::new());
        let ahead = clock::ahead();
        let states = mirrors.iter().flat_map(|both| Family::ALL.into_iter().zip(both));
        for (family, state) in states {
            for (pair, view) in state.pairs.iter().zip(repos.views()) {
                let id = |sequence| Some(view.history.by_sequence(sequence)?.id.hex());
                let Some(proof) = pair.proof else { continue };
                let (Some(generation), Some(shown)) = (id(proof.sequence), id(proof.shown)) else { continue };
                let Pair { exceptions, .. } = pair;
                let list = if exceptions.is_empty() { &mut proofs } else { &mut excepting };
                let lacks = |fault| exceptions.files().filter(move |(_, of)| *of == fault);
                let paths = |fault| lacks(fault).map(|(path, _)| path.to_owned()).collect();
                list.push(Record {
                    mirror: state.mirror.name.clone(),
                    url: state.mirror.url.clone(),
                    over: family.word().to_owned(),
                    repo: view.repo.id.clone(),
                    shown: (shown != generation).then_some(shown),
                    generation,
                    verified: ahead.date_of(proof.verified),
                    since: ahead.date_of(pair.since),
                    groups: exceptions.groups().iter().map(|group| group.pattern().to_owned()).collect(),
                    lacks: paths(Fault::Mirror),
                    origin_lacks: paths(Fault::Origin),
                });
            }
        }
        Self { version: VERSION, proofs, excepting }
    }

    /// Puts the proofs that still mean something into `states`, and says how many.
    pub(crate) fn restore(&self, mirrors: &mut [Both], repos: &Repos) -> usize {
        let by_url: HashMap<_, _> = mirrors
            .iter()
            .enumerate()
            .map(|(index, [state, _])| ((state.mirror.name.clone(), state.mirror.url.clone()), index))
            .collect();
        let mut restored = 0;
        for record in self.proofs.iter().chain(&self.excepting) {
            let mirror = by_url.get(&(record.mirror.clone(), record.url.clone()));
            let (Some(&mirror), Some((repo, view))) = (mirror, repos.by_id(&record.repo)) else { continue };
            let Some(proof) = record.proof(&view.history) else { continue };
            let Some(family) = Family::ALL.into_iter().find(|family| family.word() == record.over) else {
                continue;
            };
            let pair = &mut Arc::make_mut(&mut mirrors[mirror][family as usize]).pairs[repo];
            (pair.proof, pair.since, pair.exceptions) = (Some(proof), record.since, record.exceptions());
            pair.note = format!("proven for generation {} before the restart", proof.sequence).into();
            restored += 1;
        }
        restored
    }

    /// The one in `dir`; None if there is none.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let document: Self = serde_json::from_slice(&text)?;
        if document.version == VERSION { Ok(Some(document)) } else { Ok(None) }
    }

    /// Replaces the one in `dir`. Blocking.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = BufWriter::new(File::create(dir.join(TEMPORARY))?);
        serde_json::to_writer(&mut file, self)?;
        file.into_inner()?.sync_all()?;
        fs::rename(dir.join(TEMPORARY), dir.join(NAME))?;
        File::open(dir)?.sync_all()
    }
}

impl Record {
    fn exceptions(&self) -> Exceptions {
        let groups =
            Group::ALL.into_iter().filter(|group| self.groups.iter().any(|of| of == group.pattern()));
        let files = |paths: &[String], fault: Fault| -> Vec<_> {
            paths.iter().map(|path| (path.clone(), fault)).collect()
        };
        let all = [files(&self.lacks, Fault::Mirror), files(&self.origin_lacks, Fault::Origin)];
        Exceptions::new(groups, all.into_iter().flatten())
    }

    fn proof(&self, history: &History) -> Option<Proof> {
        let sequence = |id: &str| Some(history.by_id(&id.parse::<Sha256>().ok()?)?.sequence);
        let proven = sequence(&self.generation)?;
        let shown = self.shown.as_deref().map_or(Some(proven), sequence)?;
        Some(Proof { sequence: proven, shown, verified: self.verified })
    }
}
