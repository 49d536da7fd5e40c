//! Real zypper in an installation root of its own. It needs root's rights, as dnf's `--installroot` does.

use super::{run, said};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// One client host.
pub struct Zypper {
    dir: TempDir,
    options: Vec<String>,
}

impl Zypper {
    /// A host with nothing installed and the given `.repo` text. It looks for newer metadata at each call, where the text
    /// says `autorefresh=1`.
    pub fn new(repos: &str) -> Self {
        let zypper = Self { dir: tempfile::tempdir().expect("a scratch directory"), options: Vec::new() };
        fs::create_dir_all(zypper.path("root/etc/zypp/repos.d")).expect("a directory");
        // The default is 10 minutes.
        fs::write(zypper.path("zypp.conf"), "[main]\nrepo.refresh.delay = 0\n").expect("zypp.conf");
        zypper.set_repos(repos);
        zypper
    }

    /// Replaces the `.repo` text.
    pub fn set_repos(&self, repos: &str) {
        fs::write(self.path("root/etc/zypp/repos.d/t.repo"), repos).expect("the .repo file");
    }

    /// Adds a global option to every later call, as `--releasever=7`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Runs zypper, whatever comes of it.
    pub fn output(&self, args: &[&str]) -> Output {
        let mut zypper = Command::new("zypper");
        zypper.env("LC_ALL", "C").env_remove("http_proxy").env_remove("https_proxy");
        zypper.env("ZYPP_CONF", self.path("zypp.conf")).env("ZYPP_LOGFILE", self.path("zypper.log"));
        zypper.arg("--root").arg(self.path("root"));
        zypper.args(["--non-interactive", "--no-gpg-checks", "--gpg-auto-import-keys"]);
        zypper.args(&self.options).args(args).output().expect("zypper is installed")
    }

    /// Runs zypper; panics with all that it said unless it succeeds. Returns what it said.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let text = said(&output);
        assert!(output.status.success(), "zypper {args:?}: {}\n{text}", output.status);
        text
    }

    /// The name-version-release of each installed package, sorted.
    #[track_caller]
    pub fn installed(&self) -> Vec<String> {
        let text = run(self.rpm().args(["-qa", "--queryformat", "%{NAME}-%{VERSION}-%{RELEASE}\\n"]));
        let mut packages: Vec<String> = text.lines().map(str::to_owned).collect();
        packages.sort();
        packages
    }

    /// Panics unless every installed file is as its package says (`rpm -Va`).
    #[track_caller]
    pub fn verify(&self) {
        assert_eq!(run(self.rpm().arg("-Va")), "", "installed files differ from their packages");
    }

    fn rpm(&self) -> Command {
        let mut rpm = Command::new("rpm");
        // Debian's rpm looks below the user's home; zypper doesn't.
        rpm.arg("--root").arg(self.path("root")).args(["--dbpath", "/var/lib/rpm"]);
        rpm
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}
