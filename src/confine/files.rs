//! Files by Landlock.

use super::Places;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::PathBuf;

/// The newest version of Landlock that the rules were tried with; of an older kernel's, what it has is used.
const TRIED: ABI = ABI::V7;

/// Opens nothing but `places` from now on; binds no TCP port, and signals no process of others.
pub(super) fn restrict(places: &Places) -> Result<String, String> {
    let status = enforce(places).map_err(|error| error.to_string())?;
    let version = match status.landlock {
        LandlockStatus::NotImplemented => return Err("the kernel has no Landlock".to_owned()),
        LandlockStatus::NotEnabled => return Err("the kernel was started without Landlock".to_owned()),
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(format!("Landlock {version} enforces none of it")),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            let without = if version < 3 { ", which lets open files be cut" } else { "" };
            Ok(format!("only what it needs, by Landlock {version}{without}"))
        }
    }
}

fn enforce(places: &Places) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let overwrite = AccessFs::WriteFile | AccessFs::Truncate;
    let write = read
        | overwrite
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let append = AccessFs::WriteFile | AccessFs::MakeReg;
    let linked = read | overwrite | AccessFs::Refer;
    Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        // The node's own sockets are bound by now.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(rules(&places.read, read))?
        .add_rules(rules(&places.write, write))?
        .add_rules(rules(&places.append, append))?
        .add_rules(rules(&places.linked, linked))?
        .restrict_self()
}

/// A rule for each place that is there. The rights to a file are those of `access` that a file has.
fn rules(
    places: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    places.iter().filter_map(move |place| {
        let is_directory = place.metadata().ok()?.is_dir();
        let access = if is_directory { access } else { access & AccessFs::from_file(TRIED) };
        Some(Ok(PathBeneath::new(PathFd::new(place).ok()?, access)))
    })
}
