//! From a list of checksums to a generation: images, which have no repodata.

use super::Shared;
use super::verify::{Asked, Gaps, PushError, Read, Version};
use crate::clock::{self, Timestamp};
use crate::config::Repo;
use crate::http::TreePath;
use crate::repo::{Generation, ListedFile, Repomd, Sha256, checksums, checksums::Summed};
use crate::store::{Demand, FetchError, Object};
use std::sync::Arc;
use std::time::Duration;

/// An image that hasn't been written to for so long is whole.
const AT_REST: Duration = Duration::from_secs(5);

/// Makes a generation of what the list names and the origin has.
pub(super) async fn read(
    shared: &Arc<Shared>,
    repo: &Repo,
    version: &Version,
    (published, flipped): (Timestamp, Timestamp),
    previous: Option<Arc<Generation>>,
    gaps: Gaps,
) -> Result<Read, PushError> {
    let (named, mut left_out) = checksums::parse(&version.body);
    let mut files = Vec::with_capacity(named.len());
    for Summed { path, sha256, size } in named {
        let known = previous.as_deref().and_then(|previous| previous.catalogue.find(&path));
        let size = match (size, known) {
            (Some(size), _) => Some(size),
            (None, Some(known)) if known.digest == Some(sha256.into()) => Some(known.size),
            (None, known) => {
                let replaces = known.and(previous.as_deref()).map(|previous| previous.flipped);
                size_of(shared, repo.path.join(&path)?, sha256, replaces, gaps).await?
            }
        };
        match size {
            Some(size) => files.push(ListedFile { path, size, digest: Some(sha256.into()) }),
            None => left_out += 1,
        }
    }
    let mut without = Vec::new();
    let previous = previous.as_deref();
    let pinned = Asked { shared, repo, version, previous, gaps }.pinned(&mut without).await?;
    let none = Repomd::default();
    let mut generation =
        Generation::assemble(&version.body, &none, files, vec![], pinned, previous, published, flipped);
    generation.left_out += left_out;
    Ok(Read { generation, without })
}

/// The size of a file at the origin. The list may be there before the file: one that is being written is waited for, and one that
/// replaces another under its name, since `replaces`, is read, and has to have this SHA-256. `None`: it isn't there as it
/// should be, and the origin was given time.
async fn size_of(
    shared: &Shared,
    path: TreePath,
    sha256: Sha256,
    replaces: Option<Timestamp>,
    gaps: Gaps,
) -> Result<Option<u64>, PushError> {
    let unfinished = |why: &str| Err(PushError::Unfinished(format!("{path} {why}")));
    // The name may be reused, and what is cached of it be of an earlier push.
    let object = Object::unlisted(path.clone());
    shared.store.purge(&object).await;
    match shared.store.head(&object, Demand::PUSH).await {
        Ok(content) => {
            let Some(size) = content.meta.length else { return Ok(None) };
            if let (Some(written), Gaps::Refuse) = (content.meta.last_modified, gaps) {
                if clock::date().since(written) < AT_REST {
                    return unfinished("was written just now");
                }
                if replaces.is_some_and(|flipped| written <= clock::ahead().date_of(flipped)) {
                    return unfinished("is still the one from before");
                }
            }
            if replaces.is_none() {
                return Ok(Some(size));
            }
            match shared.store.complete(&Object::listed(path.clone(), sha256, size)).await {
                Ok(()) | Err(FetchError::NotStored) => Ok(Some(size)),
                Err(_) if gaps != Gaps::Refuse => Ok(None),
                Err(error) => unfinished(&format!("isn't as listed yet: {error}")),
            }
        }
        Err(error) if error.is_absent() && gaps != Gaps::Refuse => Ok(None),
        Err(error) if error.is_absent() => unfinished("is listed, and not there"),
        Err(error) => Err(PushError::Fetch { path, error }),
    }
}
