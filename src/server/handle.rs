//! The way of a request, in one screen: parse, look up, decide, serve or redirect or answer, account.

use super::account::Tally;
use super::answer::Answer;
use super::asked::{Asked, Refused};
use super::clients::Undecided;
use super::consider::Question;
use super::peer::Peer;
use super::reply::Reply;
use super::respond::respond;
use super::{Edge, choices, redirect, serve};
use crate::config;
use crate::http::TreePath;
use crate::policy::{BounceReport, Decision, Past, Reason, Standing, sightings};
use std::cell::OnceCell;
use std::rc::Rc;

/// Answers one request. Never fails: what goes wrong is an answer, too.
pub async fn reply(tally: Rc<Tally>, path: Result<TreePath, Refused>) -> Reply {
    let answer = match path {
        Err(refused) => Answer::from(refused),
        Ok(path) => answer(&tally.peer, &tally.asked, &path).await,
    };
    respond(tally, answer)
}

async fn answer(peer: &Peer, asked: &Asked, path: &TreePath) -> Answer {
    let edge = &*peer.edge;
    if let Some(choice) = choices::wanted(path, asked.target.query()) {
        return Box::pin(choices::answer(edge, asked, choice)).await;
    }
    let question = Question::new(edge, path, asked.target.query(), &asked.client, asked.now);
    if let Some(url) = config::moved(&edge.config.moved, &question.path) {
        return Answer::moved(url);
    }
    if question.is_hidden() {
        return Answer::hidden();
    }
    let begun_with = question.begun_with(|repo, document| edge.taken.latest(asked, repo, document));
    if let Some(pinned) = question.pinned(begun_with) {
        return serve::pinned(edge, asked, &question, pinned);
    }
    let (past, undecided) = past(peer, asked, &question);
    // What is in memory or open; the disk is asked only once it is decided that the node serves.
    let at_hand = OnceCell::new();
    let look = || at_hand.get_or_init(|| edge.store.peek(&question.object()));
    let mut decision = question.decide(&|| look().is_some(), past);
    if let (Decision::Serve(Reason::Unlisted), Some(age)) = (&decision, question.sighted_for()) {
        question.ask_for_sightings(look().as_ref(), age);
        decision = question.decide_sighted(look().as_ref(), age, past);
    }
    match decision {
        Decision::Serve(reason) => {
            drop(undecided);
            look();
            serve::serve(edge, asked, &question, at_hand.into_inner().flatten(), past, reason).await
        }
        Decision::Redirect(redirect) => {
            let answer = redirect::to_mirror(edge, asked, &question, &redirect);
            drop(undecided);
            answer
        }
    }
}

/// What is known of the client. The prober gets a report of a mirror that it comes back from.
fn past(peer: &Peer, asked: &Asked, question: &Question<'_>) -> (Past, Undecided) {
    let edge = &*peer.edge;
    let is_listed = question.place().is_some_and(|place| place.listed.is_some());
    let is_file = is_listed || question.sighted_for().is_some();
    // A HEAD moves no bytes: it is neither a return from a mirror nor a sign that one worked.
    if !is_file || asked.is_head || !question.has_mirrors() {
        return Default::default();
    }
    let (past, trail, undecided) = edge.clients.asks(asked.seen(&question.path), asked.now);
    peer.leaves_trail(trail);
    if let Standing::Bounced { mirror, .. } = past.standing {
        edge.metrics.bounces.with_label_values(&[&edge.config.mirrors[mirror].name]).inc();
        redirect::give_back(edge, asked, question, mirror);
    }
    if let Standing::Bounced { mirror, .. } | Standing::Repeated { mirror } = past.standing {
        let is_its_own = matches!(past.standing, Standing::Bounced { .. });
        doubt(edge, question, mirror, is_its_own.then(|| question.client_network()));
    }
    (past, undecided)
}

/// Has a mirror looked at from which a client came back, within the bounds of [`Doubts`](crate::policy::Doubts). Nothing else
/// that others get changes.
fn doubt(edge: &Edge, question: &Question<'_>, mirror: usize, network: Option<u64>) {
    if !edge.doubts.counts(question.client_network(), question.now()) {
        return;
    }
    let path = question.path_on(mirror).unwrap_or_else(|| question.path.clone()).as_str().to_owned();
    let path = edge.doubts.is_due(mirror, &path, question.now()).then_some(path);
    // A full queue means that the prober is busy looking already.
    if let (Some(path), true) = (&path, question.sighted_for().is_some()) {
        let _ = edge.looks.try_send(sightings::Request { path: path.clone(), mirrors: vec![mirror] });
    }
    let _ = edge.bounces.try_send(BounceReport { mirror, path, network });
}
