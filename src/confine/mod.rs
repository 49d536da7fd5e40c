//! What the process may still do once it has what it needs: an attacker who takes it over finds little more.
//!
//! Four parts, each for itself: files by Landlock, no new privileges, capabilities dropped, system calls refused that a server
//! never makes. All of them hold for the calling thread and for those that it starts from then on, for ever. What a kernel
//! doesn't have is not in force, and [`InForce`] says so; nothing here is a reason not to start.

mod capabilities;
mod files;
mod syscalls;

use std::fmt;
use std::path::PathBuf;

/// The files that the process needs. What isn't there is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Files, and directories with all that is below them, that are read.
    pub read: Vec<PathBuf>,
    /// Directories below which files and directories are read, made, written, renamed and removed.
    pub write: Vec<PathBuf>,
    /// Files, and directories with all that is below them, that are appended to; made where they are missing.
    pub append: Vec<PathBuf>,
    /// Directories from which files are linked into those of `write`. The kernel takes such a link only where the file could be
    /// written before as well: so those may be overwritten, but neither made, renamed nor removed.
    pub linked: Vec<PathBuf>,
}

/// What is in force, part by part: what it is, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    parts: [(&'static str, Result<String, String>); 4],
}

impl InForce {
    /// What is not in force, and why; none where everything is.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.parts.iter().filter_map(|(part, state)| Some((*part, state.as_ref().err()?.as_str())))
    }
}

impl fmt::Display for InForce {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (part, state)) in self.parts.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            match state {
                Ok(what) => write!(f, "{separator}{part}: {what}")?,
                Err(why) => write!(f, "{separator}{part}: NOT in force, {why}")?,
            }
        }
        Ok(())
    }
}

/// Takes from the calling thread, and from all that it starts, whatever needs more than `places`. There is no way back.
pub fn confine(places: &Places) -> InForce {
    // Without it neither of the next two is for a process that isn't root's.
    let privileges = rustix::thread::set_no_new_privs(true);
    let files = files::restrict(places);
    let capabilities = capabilities::drop_all();
    // The last one: it may refuse what the others need.
    let syscalls = syscalls::refuse();
    InForce {
        parts: [
            ("files", files),
            ("new privileges", privileges.map(|()| "none".to_owned()).map_err(|error| error.to_string())),
            ("capabilities", capabilities),
            ("system calls", syscalls),
        ],
    }
}

/// What [`confine`] would put in force here, tried in a thread that ends with it.
///
/// # Errors
/// The thread can't be started.
pub fn tried(places: &Places) -> std::io::Result<InForce> {
    let places = places.clone();
    let trial = std::thread::Builder::new().spawn(move || confine(&places))?;
    trial.join().map_err(|_| std::io::Error::other("the trial broke"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Whether this kernel has it. Where it is missing, what needs it isn't tested, and the test says so.
    fn has_landlock() -> bool {
        use landlock::{AccessFs, Ruleset, RulesetAttr, RulesetStatus};
        let tried = std::thread::spawn(|| {
            Ruleset::default().handle_access(AccessFs::Execute)?.create()?.restrict_self()
        });
        let enforced = tried.join().unwrap().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced);
        if !enforced {
            eprintln!("NOT TESTED: there is no Landlock here");
        }
        enforced
    }

    #[test]
    fn what_is_missing_is_told_on_the_same_line() {
        let parts = [
            ("files", Err("the kernel has no Landlock".to_owned())),
            ("new privileges", Ok("none".to_owned())),
            ("capabilities", Ok("none".to_owned())),
            ("system calls", Ok("60 refused".to_owned())),
        ];
        let in_force = InForce { parts };
        assert_eq!(
            in_force.to_string(),
            "files: NOT in force, the kernel has no Landlock; new privileges: none; capabilities: none; \
             system calls: 60 refused"
        );
        assert_eq!(in_force.missing().collect::<Vec<_>>(), [("files", "the kernel has no Landlock")]);
    }

    #[test]
    fn a_thread_has_what_it_was_given_and_others_are_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["tree", "state", "outside"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("outside/file"), at("tree/leads-out")).unwrap();
        let places =
            Places { read: vec![at("tree"), at("none")], write: vec![at("state")], ..Places::default() };
        let (paths, given) = (dir.path().to_owned(), places.clone());
        let confined = std::thread::spawn(move || {
            let in_force = confine(&given);
            let at = |name: &str| paths.join(name);
            let can = [
                fs::read(at("tree/file")).is_ok(),
                fs::read_dir(at("tree")).is_ok(),
                fs::create_dir(at("state/new")).is_ok(),
                fs::rename(at("state/file"), at("state/new/file")).is_ok(),
                fs::write(at("state/new/file"), "y").is_ok(),
                fs::remove_file(at("state/new/file")).is_ok(),
            ];
            let cannot = [
                fs::read(at("outside/file")).is_err(),
                fs::read(at("tree/leads-out")).is_err(),
                fs::read_dir(at("outside")).is_err(),
                fs::write(at("tree/file"), "y").is_err(),
                fs::remove_file(at("tree/file")).is_err(),
                fs::write(at("outside/new"), "y").is_err(),
                fs::hard_link(at("tree/file"), at("state/link")).is_err(),
            ];
            let runs = std::process::Command::new("/bin/true").status();
            (in_force, can, cannot, runs.map_err(|error| error.raw_os_error()))
        });
        let (in_force, can, cannot, runs) = confined.join().unwrap();
        assert_eq!(can, [true; 6], "{in_force}");
        let missing: Vec<_> = in_force.missing().map(|(part, _)| part).collect();
        if has_landlock() {
            assert!(!missing.contains(&"files"), "{in_force}");
            assert_eq!(cannot, [true; 7], "{in_force}");
        }
        assert!(!missing.contains(&"new privileges") && !missing.contains(&"capabilities"), "{in_force}");
        assert_eq!(runs.unwrap_err(), Some(1), "EPERM of the filter: {in_force}");
        assert!(fs::read(at("outside/file")).is_ok(), "this thread is as it was");
        assert_eq!(tried(&places).unwrap(), in_force);
    }

    #[test]
    fn files_are_linked_out_of_a_directory_of_which_that_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["tree", "state"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("tree/file"), "x").unwrap();
        let places = Places { linked: vec![at("tree")], write: vec![at("state")], ..Places::default() };
        let paths = dir.path().to_owned();
        let confined = std::thread::spawn(move || {
            confine(&places);
            let at = |name: &str| paths.join(name);
            (fs::hard_link(at("tree/file"), at("state/link")), fs::write(at("tree/new"), "x").is_err())
        });
        let (linked, refused) = confined.join().unwrap();
        linked.unwrap();
        assert!(refused || !has_landlock());
    }
}
