//! The real binary under test: `freshet serve` with a configuration, on ports and in directories of its own.

use super::client::{self, Response};
use super::{Port, run, scratch, wait_for, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// A node. Its process is killed when this is dropped; what it logged is shown if the test failed.
pub struct Node {
    dir: TempDir,
    /// What runs the binary, if not the test itself: a command that ends in `exec`.
    prefix: Vec<String>,
    http: Port,
    https: Port,
    admin: Port,
    awaited: Vec<SocketAddr>,
    child: Option<Child>,
    stdout: Lines,
    stderr: Lines,
}

impl Node {
    /// Starts a node and waits until it listens. In `config`, `{http}`, `{https}` and `{admin}` stand for
    /// addresses with ports that stay the node's over restarts (so `self_url` may name them), `{dir}` for a directory.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_by(&[], config)
    }

    /// The same by another command, which the binary and its arguments follow. `{dir}` stands for the same directory in it.
    #[track_caller]
    pub fn start_by(prefix: &[&str], config: &str) -> Self {
        let dir = scratch();
        let path = dir.path().to_str().expect("UTF-8");
        let mut node = Self {
            prefix: prefix.iter().map(|word| word.replace("{dir}", path)).collect(),
            dir,
            http: Port::reserve(),
            https: Port::reserve(),
            admin: Port::reserve(),
            awaited: Vec::new(),
            child: None,
            stdout: Lines::default(),
            stderr: Lines::default(),
        };
        node.configure(config);
        node.launch();
        node
    }

    /// Replaces the configuration file; the process reads it when it starts, or when told to.
    pub fn configure(&mut self, config: &str) {
        let mut text = config.replace("{dir}", self.dir().to_str().expect("UTF-8"));
        self.awaited.clear();
        for (name, port) in [("{http}", &self.http), ("{https}", &self.https), ("{admin}", &self.admin)] {
            if text.contains(name) {
                self.awaited.push(port.addr());
                text = text.replace(name, &port.addr().to_string());
            }
        }
        fs::write(self.dir().join("freshet.toml"), text).expect("the configuration");
    }

    /// Starts the process, which must not run, and waits until it listens on all its addresses.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let words: Vec<&str> =
            self.prefix.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_freshet")]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(self.dir().join("freshet.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        self.stdout = Lines::of(child.stdout.take().expect("it is piped"));
        self.stderr = Lines::of(child.stderr.take().expect("it is piped"));
        self.child = Some(child);
        let awaited = self.awaited.clone();
        wait_until("the node to listen", || {
            let ended = self.child().try_wait().expect("its state");
            assert!(ended.is_none(), "the node ended: {ended:?}\n{}", self.log());
            let log = self.log();
            awaited.iter().all(|addr| {
                let addr = addr.to_string();
                log.lines().any(|line| line.contains("listening") && line.contains(&addr))
            })
        });
    }

    /// Where the tree is served.
    pub fn http(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Where the tree is served with TLS.
    pub fn https(&self) -> SocketAddr {
        self.https.addr()
    }

    /// Where the admin API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// The tree's base URL, with a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}/", self.http())
    }

    /// The directory that `{dir}` stands for.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// GET of a path in the tree.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        client::get(self.http(), path)
    }

    /// Waits until `/readyz` says that the node takes traffic.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_until("the node to be ready", || client::get(self.admin(), "/readyz").status == 200);
    }

    /// The admin API's `/api/v1/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let response = client::get(self.admin(), "/api/v1/status");
        assert_eq!(response.status, 200, "{}", response.text());
        serde_json::from_slice(&response.body).expect("the status is JSON")
    }

    /// What the node says would become of a request from this host for `path`, with a User-Agent; both percent-encoded.
    #[track_caller]
    pub fn explain(&self, path: &str, agent: &str) -> Value {
        let target = format!("/api/v1/explain?client=127.0.0.1&path={path}&user_agent={agent}");
        let response = client::get(self.admin(), &target);
        assert_eq!(response.status, 200, "{}", response.text());
        serde_json::from_slice(&response.body).expect("the explanation is JSON")
    }

    /// Waits until the status is as `holds` wants it, and returns it.
    #[track_caller]
    pub fn wait_status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(&holds))
    }

    /// The value of one sample in `/metrics`, by its name and labels as they stand there.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = client::get(self.admin(), "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(value.trim().parse().expect("a sample's value is a number"))
    }

    /// The access log of the process that runs or ran last: the lines on stdout.
    pub fn access(&self) -> Vec<Value> {
        self.stdout
            .so_far()
            .iter()
            .map(|line| serde_json::from_str(line).expect("an access log line is JSON"))
            .collect()
    }

    /// Waits for an access log line like that: it is written when its request is over, after the client has all.
    #[track_caller]
    pub fn wait_access(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || self.access().into_iter().find(&is))
    }

    /// What the process that runs or ran last has said on stderr.
    pub fn log(&self) -> String {
        self.stderr.so_far().join("\n")
    }

    /// The process.
    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    /// What the process has in memory, in bytes.
    pub fn memory_bytes(&mut self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Sends a signal, by its name without "SIG".
    pub fn signal(&mut self, name: &str) {
        let pid = self.child().id().to_string();
        run(Command::new("kill").args(["-s", name, &pid]));
    }

    /// Waits until the process ends by itself. [`launch`](Self::launch) may follow.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_for("the process to end", || self.child().try_wait().expect("the process's state"));
        self.ended();
        status
    }

    /// Asks the process to drain and end, and waits for it.
    #[track_caller]
    pub fn sigterm(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// Kills the process at once, as a crash would.
    pub fn kill9(&mut self) {
        self.child().kill().expect("it can be killed");
        self.child().wait().expect("it has ended");
        self.ended();
    }

    fn ended(&mut self) {
        self.child = None;
        self.stdout.finish();
        self.stderr.finish();
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it runs")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            self.ended();
        }
        if thread::panicking() {
            eprintln!("--- the node on {} said:\n{}", self.http(), self.log());
        }
    }
}

/// The lines of a pipe. A thread collects them, so that the process never blocks on it.
#[derive(Default)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = lines.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                collected.lock().expect("no one panics with it").push(line);
            }
        });
        Self { lines, reader: Some(reader) }
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().expect("no one panics with it").clone()
    }

    /// Waits for the pipe's end, which the end of its process brings.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it does not panic");
        }
    }
}
