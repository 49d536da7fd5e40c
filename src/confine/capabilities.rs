//! What root, or systemd, gives a process besides its user's rights.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Kept where the process has them: a tree, or a cache, may be another user's. Landlock bounds which files they are good for.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);

/// Drops all but [`KEPT`]; the names of those that are left.
pub(super) fn drop_all() -> Result<String, String> {
    let told = |error: Errno| error.to_string();
    let now = capabilities(None).map_err(told)?;
    // A program that is run later can't get them back. Only root may say so, and no other user needs it: there are no new
    // privileges, and nothing is run.
    for one in CapabilitySet::all().difference(KEPT).iter() {
        let _ = remove_capability_from_bounding_set(one);
    }
    clear_ambient_capability_set().map_err(told)?;
    let left = now.permitted & KEPT;
    let sets = CapabilitySets {
        effective: now.effective & KEPT,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(told)?;
    let names: Vec<_> = left.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    Ok(if names.is_empty() { "none".to_owned() } else { format!("none but {}", names.join(" and ")) })
}
