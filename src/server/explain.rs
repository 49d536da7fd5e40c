//! What would become of a request, and why: the same question and decision as `handle`, without carrying it out.
//!
//! Nothing is fetched or remembered of the client, and nothing counted but a look into the store. How a client stands is
//! looked up by its address and User-Agent, so only with the very User-Agent of a real client does its past show.

use super::Edge;
use super::answer::Answer;
use super::choices::{self, Wish};
use super::clients::Seen;
use super::consider::{PinnedFile, Question};
use super::redirect;
use crate::clock::{self, Timestamp};
use crate::config;
use crate::geo::Code;
use crate::http::TreePath;
use crate::policy::client::{Agent, Recovery};
use crate::policy::select::Unfit;
use crate::policy::{Client, Currency, Decision, Past, Place, Reason, Redirect, Standing};
use crate::repo::Kind;
use crate::store::Content;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A request that is only supposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supposed {
    /// Who asks.
    pub client: IpAddr,
    /// Path, and query if there is one, as in a request line: percent-encoded. The first '/' may be left out.
    pub path: String,
    /// Its User-Agent.
    pub user_agent: String,
    /// Its Range field.
    pub range: Option<String>,
    /// It comes over https.
    pub https: bool,
}

/// What would become of a request. Words are those of the access log and the metrics; times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The path as it was asked for, decoded.
    pub path: String,
    /// The same with aliases replaced.
    pub canonical: String,
    /// The repo that it lies in.
    pub repo: Option<String>,
    /// Sequence of that repo's current generation; 0 while there is none.
    pub generation: Option<u32>,
    /// What the repo's metadata say of it.
    pub listed: Option<ListedFile>,
    /// The repo's window.
    pub window: Option<WindowPhase>,
    /// Who asks.
    pub client: Asker,
    /// The node holds it: nothing would have to be fetched.
    pub cached: bool,
    /// The load that was decided on.
    pub egress: Load,
    /// `serve`, `redirect`, or `answer` (mirrorlist, metalink, what is wrong with their query, moved).
    pub decision: String,
    /// The reason's word.
    pub reason: String,
    /// The reason in a sentence.
    pub because: String,
    /// Where the client is sent.
    pub location: Option<String>,
    /// Where it would be sent if the node had to fetch the file and the origin failed.
    pub last_resort: Option<String>,
    /// All mirrors, best first for this client.
    pub mirrors: Vec<Candidate>,
}

/// A file as a repo lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// In bytes.
    pub size: u64,
    /// In hex, where the repo gives one.
    pub sha256: Option<String>,
    /// The digest that the repo gives, of whatever kind: `sha512:` and hex.
    #[serde(default)]
    pub digest: Option<String>,
    /// `package`, `metadata` (a name with its checksum in it), or `reused`.
    pub kind: String,
    /// Sequence of the first generation that lists it.
    pub since: u32,
    /// Sequence of the last generation that lists it, if that isn't the current one.
    pub removed_after: Option<u32>,
}

/// A repo's window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPhase {
    /// `open`, `extended`, or `closed`.
    pub phase: String,
    /// When it ends, or would have ended.
    pub closes: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Its address.
    pub addr: IpAddr,
    /// Two letters, where it is known.
    pub country: Option<Code>,
    /// The same of its continent.
    #[serde(default)]
    pub continent: Option<Code>,
    /// Its autonomous system.
    #[serde(default)]
    pub asn: Option<u32>,
    /// The network whose clients all go to one mirror.
    pub network: String,
    /// Over https.
    pub https: bool,
    /// It asks for a part.
    pub ranged: bool,
    /// It isn't known to recover from a bad redirect: all but librepo's clients.
    pub fragile: bool,
    /// `clear`, `slow-start`, `cooling-off`, or `bounced`.
    pub standing: String,
}

/// The load that was decided on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Egress divided by capacity.
    pub pressure: f64,
    /// Share of redirectable requests that is shed, 0 to 1.
    pub shed: f64,
}

/// A mirror, as it was judged for this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its place in the order for this client, from 1 on.
    pub rank: usize,
    /// It could take the request.
    pub fit: bool,
    /// It does.
    pub chosen: bool,
    /// `fits`, or why not.
    pub why: String,
}

/// What would become of the request at `now`.
///
/// # Errors
/// The path can't be one; in words.
pub async fn explain(edge: &Edge, supposed: &Supposed, now: Timestamp) -> Result<Explanation, String> {
    let (raw, query) = match supposed.path.split_once('?') {
        Some((raw, query)) => (raw, Some(query)),
        None => (supposed.path.as_str(), None),
    };
    let path = TreePath::from_uri(&format!("/{}", raw.trim_start_matches('/')))
        .map_err(|error| format!("path: {error}"))?;
    let whereabouts = edge.geo.find(supposed.client);
    let agent = Agent::new(supposed.client, whereabouts, supposed.user_agent.as_bytes());
    let client = Client::new(agent, supposed.https, supposed.range.as_deref().map(str::as_bytes));
    let question = Question::new(edge, &path, query, &client, now);
    let content = edge.store.peek(&question.object());
    let begun_with = question.begun_with(|repo, document| edge.taken.latest_of(&client, repo, document, now));
    let pinned = question.pinned(begun_with);
    let at_hand = pinned.as_ref().is_some_and(|pinned| pinned.content.is_some()) || content.is_some();
    let held = at_hand || edge.store.find(&question.object()).await.is_some();
    let past = past(edge, &question, supposed, &client, now);
    let listed = question.place().and_then(|place| listed(&place, pinned.as_ref()));
    let outcome = match choices::wanted(&path, query) {
        Some(choice) => {
            let query = query.unwrap_or_default();
            let list = choices::would_be(edge, &Wish { choice, query, client: &client, now });
            let reason = if let Answer::Page { reason, .. } = list { reason } else { Reason::Mirrorlist };
            answer(reason, None)
        }
        None => outcome(edge, &question, (pinned, at_hand, content.as_ref()), past),
    };
    let place = question.place();

    let last_resort = match outcome.word {
        "serve" if !held => question.last_resort(past, Reason::OriginDown),
        _ => None,
    };
    Ok(Explanation {
        path: path.as_str().to_owned(),
        canonical: question.path.as_str().to_owned(),
        repo: place.as_ref().map(|place| place.view.repo.id.clone()),
        generation: place.as_ref().map(|place| place.view.sequence()),
        listed,
        window: place.as_ref().map(|place| window(edge, place, now)),
        cached: held,
        egress: Load { pressure: edge.egress.pressure(), shed: edge.egress.shed() },
        decision: outcome.word.to_owned(),
        reason: outcome.reason.word().to_owned(),
        because: outcome.reason.sentence().to_owned(),
        location: outcome.location,
        last_resort: last_resort.map(|redirect| location(edge, &redirect)),
        mirrors: candidates(edge, question.mirrors(content.as_ref(), past), outcome.mirror),
        client: asker(&client, past.standing),
    })
}

/// As `handle` has it, without taking note.
fn past(edge: &Edge, question: &Question<'_>, supposed: &Supposed, client: &Client, now: Timestamp) -> Past {
    let is_listed = question.place().is_some_and(|place| place.listed.is_some());
    let is_file = is_listed || question.sighted_for().is_some();
    if !is_file || !question.has_mirrors() {
        return Past::default();
    }
    let range = supposed.range.as_deref().map(str::as_bytes);
    edge.clients.would_be(Seen::new(client, &question.path, range, 0), now)
}

struct Outcome {
    word: &'static str,
    reason: Reason,
    location: Option<String>,
    mirror: Option<usize>,
}

fn answer(reason: Reason, location: Option<String>) -> Outcome {
    Outcome { word: "answer", reason, location, mirror: None }
}

/// The steps of `handle` for what is no list, in its order.
fn outcome(
    edge: &Edge,
    question: &Question<'_>,
    (pinned, at_hand, content): (Option<PinnedFile>, bool, Option<&Content>),
    past: Past,
) -> Outcome {
    if let Some(url) = config::moved(&edge.config.moved, &question.path) {
        return answer(Reason::Moved, Some(url));
    }
    if question.is_hidden() {
        return answer(Reason::Hidden, None);
    }
    let decision = match pinned {
        Some(_) if question.currency() == Some(Currency::Expired) => return answer(Reason::OriginDown, None),
        Some(PinnedFile { content: None, .. }) => return answer(Reason::NotFound, None),
        Some(_) => Decision::Serve(Reason::Metadata),
        None => match (question.decide(&|| at_hand, past), question.sighted_for()) {
            (Decision::Serve(Reason::Unlisted), Some(age)) => question.decide_sighted(content, age, past),
            (decision, _) => decision,
        },
    };
    match decision {
        Decision::Serve(reason) => Outcome { word: "serve", reason, location: None, mirror: None },
        Decision::Redirect(redirect) => {
            let location = Some(location(edge, &redirect));
            Outcome { word: "redirect", reason: redirect.reason, location, mirror: Some(redirect.mirror) }
        }
    }
}

fn location(edge: &Edge, redirect: &Redirect) -> String {
    redirect::url(&edge.config.mirrors[redirect.mirror], &redirect.path)
}

fn listed(place: &Place<'_>, pinned: Option<&PinnedFile>) -> Option<ListedFile> {
    if let Some((sequence, meta)) =
        pinned.and_then(|file| Some((file.sequence, &file.content.as_ref()?.meta)))
    {
        return Some(ListedFile {
            size: meta.length.unwrap_or_default(),
            sha256: meta.sha256.map(|sha256| sha256.hex()),
            digest: meta.listed.map(|digest| digest.to_string()),
            kind: "reused".into(),
            since: sequence,
            removed_after: (sequence != place.view.sequence()).then_some(sequence),
        });
    }
    let listed = place.listed?;
    let kind = match listed.entry.kind {
        Kind::Package => "package",
        Kind::Metadata => "metadata",
        Kind::Reused => "reused",
        Kind::Replaced => "replaced",
    };
    Some(ListedFile {
        size: listed.entry.size,
        sha256: listed.entry.digest.and_then(|digest| digest.sha256()).map(|sha256| sha256.hex()),
        digest: listed.entry.digest.map(|digest| digest.to_string()),
        kind: kind.to_owned(),
        since: listed.entry.since,
        removed_after: listed.until,
    })
}

fn window(edge: &Edge, place: &Place<'_>, now: Timestamp) -> WindowPhase {
    let fresh = edge.published.mirrors.load().fresh(place.index, place.view.sequence());
    let phase = place.view.phase(fresh, now);
    let closes = place.view.window.filter(|_| phase.is_open()).map(|window| clock::shown(window.closes));
    WindowPhase { phase: phase.word().to_owned(), closes }
}

fn asker(client: &Client, standing: Standing) -> Asker {
    let prefix = if client.addr.is_ipv4() { 24 } else { 48 };
    let network = IpNet::new(client.addr, prefix)
        .map_or_else(|_| client.addr.to_string(), |net| net.trunc().to_string());
    let standing = match standing {
        Standing::Clear => "clear",
        Standing::SlowStart => "slow-start",
        Standing::CoolingOff => "cooling-off",
        Standing::Repeated { .. } => "repeated",
        Standing::Bounced { .. } => "bounced",
    };
    Asker {
        addr: client.addr,
        country: client.whereabouts.country,
        continent: client.whereabouts.continent,
        asn: client.whereabouts.asn,
        network,
        https: client.https,
        ranged: client.ranged,
        fragile: client.recovery != Recovery::Retries,
        standing: standing.to_owned(),
    }
}

fn candidates(
    edge: &Edge,
    judged: Vec<(usize, Result<TreePath, Unfit>)>,
    chosen: Option<usize>,
) -> Vec<Candidate> {
    let judged = judged.into_iter().zip(1..);
    let candidate = |((index, fit), rank): ((usize, Result<_, Unfit>), usize)| Candidate {
        name: edge.config.mirrors[index].name.clone(),
        rank,
        fit: fit.is_ok(),
        chosen: chosen == Some(index),
        why: fit.map_or_else(Unfit::sentence, |_: TreePath| "fits").to_owned(),
    };
    judged.map(candidate).collect()
}
