//! Real dnf and rpm in an installation root of their own. They need root's rights, as dnf's `--installroot` does.

use super::{run, said};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// One client host.
pub struct Dnf {
    dir: TempDir,
    options: Vec<String>,
}

impl Dnf {
    /// A host with nothing installed and the given `.repo` text.
    pub fn new(repos: &str) -> Self {
        let dnf = Self { dir: tempfile::tempdir().expect("a scratch directory"), options: Vec::new() };
        for dir in ["root", "repos.d"] {
            fs::create_dir(dnf.path(dir)).expect("a directory");
        }
        fs::write(dnf.path("dnf.conf"), "[main]\n").expect("dnf.conf");
        dnf.set_repos(repos);
        dnf
    }

    /// A host with the one repo `t`, always up to date, from `baseurl`.
    pub fn with_baseurl(baseurl: &str) -> Self {
        Self::new(&format!("[t]\nname=t\nbaseurl={baseurl}\ngpgcheck=0\nmetadata_expire=0\n"))
    }

    /// Replaces the `.repo` text.
    pub fn set_repos(&self, repos: &str) {
        fs::write(self.path("repos.d/t.repo"), repos).expect("the .repo file");
    }

    /// Adds an option to every later call, as `--setopt=timeout=3`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Runs dnf without plugins, whatever comes of it.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command().arg("--noplugins").args(args).output().expect("dnf is installed")
    }

    /// Runs dnf; panics with all that it said unless it succeeds. Returns what it said.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let text = said(&output);
        assert!(output.status.success(), "dnf {args:?}: {}\n{text}", output.status);
        text
    }

    /// As if its `.repo` files had been written and its metadata fetched so much earlier.
    pub fn age(&self, by: Duration) {
        for below in ["dnf.conf", "repos.d", "root/var/cache/dnf"] {
            age(&self.path(below), by);
        }
    }

    /// Downloads every package of the repo into a directory, which it returns; dnf checks each checksum.
    #[track_caller]
    pub fn reposync(&self, repo_id: &str) -> PathBuf {
        let to = self.path("sync");
        run(self.command().args(["reposync", "--repoid", repo_id, "--download-path"]).arg(&to));
        to.join(repo_id)
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
        rpm.arg("--root").arg(self.path("root"));
        rpm
    }

    fn command(&self) -> Command {
        let mut dnf = Command::new("dnf");
        dnf.env("LC_ALL", "C").env_remove("http_proxy").env_remove("https_proxy");
        dnf.args(["-y", "--releasever=9", "--setopt=module_platform_id=platform:el9"]);
        dnf.args(["--setopt=install_weak_deps=0", "--setopt=keepcache=0"]);
        for (option, path) in
            [("--config", "dnf.conf"), ("--installroot", "root"), ("--setopt=reposdir", "repos.d")]
        {
            dnf.arg(format!("{option}={}", self.path(path).display()));
        }
        dnf.args(&self.options);
        dnf
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Sets back the times of modification of `path` and all below it.
fn age(path: &Path, by: Duration) {
    if path.is_dir() {
        fs::read_dir(path).expect("a directory").for_each(|entry| age(&entry.expect("an entry").path(), by));
    }
    let file = File::open(path).expect("a file");
    let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    file.set_modified(modified - by).expect("an owner may set it");
}
