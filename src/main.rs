//! The command line of freshet.

#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use freshet::app::Running;
use freshet::config::{Config, Mistake, Scenario, Warning};
use freshet::plan::sweep::Target;
use freshet::{ask, demo, planner, shown};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

/// A request takes many pieces of memory and frees them within microseconds. jemalloc gives out first what a thread freed last,
/// up to 32 KiB, so that a TLS record is encrypted into memory that is in the processor's caches. mimalloc, which goes round
/// through 512 KiB, made 0.60 of its requests for 1 MB over TLS, and 0.97 for 4 KiB without.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for a command line or config that makes no sense: `EX_USAGE` of sysexits.h.
const EX_USAGE: u8 = 64;

/// The edge server of a Linux distribution's own download nodes.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT, then drain.
    Serve {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        addresses: Addresses,
    },
    /// Name every mistake in a config; exit 64 if there is one.
    Check {
        /// The config.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Ask the running node what it would do with a request, and why.
    Explain(Explain),
    /// Make the running node poll the origin now.
    Push {
        /// The node's config.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Wait until the node offers what the origin shows; exit 1 with the reason if the push is held or fails.
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after this time and exit 1.
        #[arg(long, value_name = "TIME", default_value = "10m", requires = "wait", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Offer what the origin shows even if files of it are absent or wrong there.
        #[arg(long, requires = "repo")]
        anyway: bool,
        /// The repo, as name/release/arch; all by default.
        repo: Option<String>,
    },
    /// Purge a path from the running node's cache, or all paths with a prefix.
    Purge {
        /// The node's config.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Keep it, to be revalidated before its next use, or to be served while the origin fails.
        #[arg(long)]
        soft: bool,
        /// All paths that begin with PATH.
        #[arg(long)]
        prefix: bool,
        /// As in a URL, with the leading slash.
        path: String,
    },
    /// Play a push in virtual time: what the nodes will need, and when hosts will have it.
    Plan(Plan),
    /// Show a push from its origin to fresh mirrors, in one process on loopback.
    Demo {
        /// End with a summary once the story is told: 0, or 1 if a byte or step was wrong.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The config.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve this directory with built-in defaults.
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Addresses {
    /// With --tree: where to listen instead of 127.0.0.1:8080 and [::1]:8080; may be given several times.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    listen: Vec<SocketAddr>,
    /// With --tree: where to listen for admin instead of 127.0.0.1:9180; a loopback address.
    #[arg(long, value_name = "ADDR", conflicts_with = "config", value_parser = loopback)]
    admin: Option<SocketAddr>,
}

/// The admin listener needs a token anywhere but on loopback, and a tree without config has none.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr =
        text.parse().map_err(|_| "expected an address with a port, 127.0.0.1:9180 for instance")?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err("expected a loopback address".to_owned()) }
}

#[derive(Debug, Args)]
struct Explain {
    /// The node's config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The client's address.
    #[arg(long, value_name = "ADDR")]
    client: IpAddr,
    /// The client's User-Agent.
    #[arg(long, value_name = "TEXT", default_value = "libdnf")]
    user_agent: String,
    /// The client asks for this range, `bytes=0-99` for instance.
    #[arg(long, value_name = "RANGE")]
    range: Option<String>,
    /// The client comes over https.
    #[arg(long)]
    https: bool,
    /// Print the node's answer as JSON.
    #[arg(long)]
    json: bool,
    /// The path of the request.
    path: String,
}

#[derive(Debug, Args)]
struct Plan {
    /// The scenario; without one, a million hosts, 600 mirrors, three regions.
    scenario: Option<PathBuf>,
    /// Take the push from two states of a repo: directories with repodata/ in them.
    #[arg(long, value_names = ["OLD", "NEW"], num_args = 2)]
    from_repo: Option<Vec<PathBuf>>,
    /// Take how long mirrors need from the running node of this config.
    #[arg(long, value_name = "CONFIG")]
    from_node: Option<PathBuf>,
    /// With --from-node: of which repo, as name/release/arch; the first by default.
    #[arg(long, value_name = "REPO", requires = "from_node")]
    repo: Option<String>,
    /// Try other windows, thresholds and capacities, and name the cheapest that are enough.
    #[arg(long, value_name = "SHARE in TIME")]
    target: Option<Target>,
    /// Hosts that are played; each stands for as many of the others.
    #[arg(long, value_name = "N", default_value_t = freshet::plan::SAMPLE)]
    sample: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write each plot as an SVG into this directory.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            // Help and version are errors to clap, but not to whoever asked for them.
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("freshet: {}", shown::lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { source: Source { config: Some(path), .. }, .. } => {
            trace("info");
            match load(&path) {
                Ok(config) => {
                    let read = || {
                        let (config, warnings) = Config::load(&path)?;
                        for warning in warnings {
                            tracing::warn!("{warning}");
                        }
                        Ok(config)
                    };
                    Running::start_confined(config)?.until_signal(read)?;
                }
                Err(code) => return Ok(code),
            }
        }
        Command::Serve { source: Source { tree, .. }, addresses } => {
            trace("info");
            let tree = tree.context("neither --config nor --tree")?;
            let tree = tree.canonicalize().with_context(|| tree.display().to_string())?;
            let mut config = Config::for_tree(&tree);
            if !addresses.listen.is_empty() {
                config.http.listen = addresses.listen;
            }
            config.admin.listen = addresses.admin.unwrap_or(config.admin.listen);
            let same = config.clone();
            Running::start_confined(config)?.until_signal(|| Ok(same.clone()))?;
        }
        Command::Check { config } => match load(&config) {
            Ok(resolved) => {
                if let Some(code) = checked_as_owner(&resolved, &config) {
                    return Ok(code);
                }
                for warning in freshet::app::preflight(&resolved) {
                    println!("{}: warning: {warning}", config.display());
                }
                println!("{}: {}", config.display(), freshet::app::confinement(&resolved));
                println!("{}: no mistakes", config.display());
            }
            Err(code) => return Ok(code),
        },
        Command::Explain(explain) => {
            let question = ask::Question {
                client: explain.client,
                path: explain.path,
                user_agent: explain.user_agent,
                range: explain.range,
                https: explain.https,
            };
            match load(&explain.config) {
                Ok(config) => print!("{}", shown::lines(&ask::explain(&config, &question, explain.json)?)),
                Err(code) => return Ok(code),
            }
        }
        Command::Push { config, wait, timeout, anyway, repo } => match load(&config) {
            Ok(config) => {
                let wait = if wait { ask::Wait::UpTo(timeout) } else { ask::Wait::No };
                let faults = if anyway { ask::Faults::Ignore } else { ask::Faults::Hold };
                print!("{}", shown::lines(&ask::push(&config, repo.as_deref(), faults, wait)?));
            }
            Err(code) => return Ok(code),
        },
        Command::Purge { config, soft, prefix, path } => {
            let typed = if prefix { ask::Typed::Prefix(path) } else { ask::Typed::Path(path) };
            let mode = if soft { ask::Mode::Soft } else { ask::Mode::Hard };
            match load(&config) {
                Ok(config) => print!("{}", shown::lines(&ask::purge(&config, &typed, mode)?)),
                Err(code) => return Ok(code),
            }
        }
        Command::Plan(line) => return plan(&line),
        Command::Demo { once } => {
            trace("warn");
            return Ok(if demo::run(once)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(line: &Plan) -> anyhow::Result<ExitCode> {
    let read = line.scenario.as_deref().map_or_else(
        || told(Path::new(""), Scenario::parse("", Path::new(""))),
        |path| told(path, Scenario::load(path)),
    );
    let mut scenario = match read {
        Ok(scenario) => scenario,
        Err(code) => return Ok(code),
    };
    if let Some([old, new]) = line.from_repo.as_deref() {
        planner::from_repo(&mut scenario, old, new)?;
    }
    if let Some(path) = &line.from_node {
        let config = match load(path) {
            Ok(config) => config,
            Err(code) => return Ok(code),
        };
        eprint!("{}", planner::from_node(&mut scenario, &config, line.repo.as_deref())?);
    }
    let Plan { sample, target, json, .. } = *line;
    let wanted =
        planner::Wanted { sample, target, html: line.html.as_deref(), plots: line.plots.as_deref(), json };
    print!("{}", planner::plan(&scenario, &wanted)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs `check` once more as the user who owns `node.state`, if this one is root and that is another: what root may do says
/// nothing of what the node's own user may.
fn checked_as_owner(config: &Config, file: &Path) -> Option<ExitCode> {
    let owner = std::fs::metadata(config.node.state.as_deref()?).ok()?;
    if owner.uid() == 0 || !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut check = process::Command::new(std::env::current_exe().ok()?);
    check.arg("check").arg("--config").arg(file).uid(owner.uid()).gid(owner.gid());
    // Where that user can't even run it, root's own look has to do.
    let code = check.status().ok()?.code()?;
    Some(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The config, its warnings told; or the exit code once its mistakes are told.
fn load(path: &Path) -> Result<Config, ExitCode> {
    told(path, Config::load(path))
}

/// What was read from `path`, likewise.
fn told<T>(path: &Path, read: Result<(T, Vec<Warning>), Vec<Mistake>>) -> Result<T, ExitCode> {
    match read {
        Ok((config, warnings)) => {
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            Ok(config)
        }
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake: &Mistake| eprintln!("{mistake}"));
            eprintln!("{}: {} mistakes", path.display(), mistakes.len());
            Err(ExitCode::from(EX_USAGE))
        }
    }
}

/// Traces to stderr; `FRESHET_LOG` takes tracing-subscriber's filter syntax. Whatever a field or message holds of what came from
/// outside, an event is one line of characters that are shown as themselves.
fn trace(default: &str) {
    let filter = EnvFilter::try_from_env("FRESHET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    let fields = format::debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", shown::line(&text)),
            name => write!(writer, "{name}={}", shown::line(&text)),
        }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .fmt_fields(fields.delimited(" "))
        .init();
}
