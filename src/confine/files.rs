//! Files by Landlock.

use super::Places;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
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
    told(version, &status.ruleset)
}

/// What is in force of a version of Landlock, or why nothing is.
fn told(version: i32, status: &RulesetStatus) -> Result<String, String> {
    match status {
        RulesetStatus::NotEnforced if version < 2 => {
            Err(format!("Landlock {version} refuses each move between directories; Linux 5.19 has 2"))
        }
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
        // The first version refuses all moves and links between directories, and the cache lives by them: it is not used at all.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_told_by_version() {
        let enforced = |version| told(version, &RulesetStatus::PartiallyEnforced).unwrap();
        assert_eq!(enforced(4), "only what it needs, by Landlock 4");
        assert_eq!(enforced(2), "only what it needs, by Landlock 2, which lets open files be cut");
        let without = |version| told(version, &RulesetStatus::NotEnforced).unwrap_err();
        assert_eq!(without(1), "Landlock 1 refuses each move between directories; Linux 5.19 has 2");
        assert_eq!(without(2), "Landlock 2 enforces none of it");
    }
}
