//! Looks at mirrors for files that no list names: a HEAD over each family that is in use.

use super::Shared;
use super::families::{Both, Family};
use super::lanes::Lanes;
use crate::clock;
use crate::http::TreePath;
use crate::policy::{Spot, sightings};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Looks under way at a time, over all files and mirrors; what is asked for beyond it is asked for again by its next client.
const MOST: usize = 256;

/// The looks that are under way.
#[derive(Default)]
pub(super) struct Sights {
    pub(super) tasks: JoinSet<()>,
}

impl Sights {
    /// Looks at the mirrors of a request, as far as they are up. `lanes` are by mirror.
    pub(super) fn start(
        &mut self,
        shared: &Arc<Shared>,
        families: &[Both],
        lanes: &[Arc<Lanes>],
        request: sightings::Request,
    ) {
        let sightings::Request { path, mirrors } = request;
        // Its URL is made of what the client asked for, canonical and checked.
        let Ok(tree_path) = TreePath::new(&path) else { return };
        let (path, encoded): (Arc<str>, _) = (path.into(), tree_path.encoded());
        for mirror in mirrors {
            for family in Family::ALL {
                let state = &families[mirror][family as usize];
                if !state.reach.is_up() || self.tasks.len() >= MOST {
                    continue;
                }
                let url = format!("{}{encoded}", state.mirror.url);
                let spot = Spot { mirror, ipv6: family == Family::V6 };
                let (shared, lanes, path) = (shared.clone(), lanes[mirror].clone(), path.clone());
                self.tasks.spawn(async move {
                    // No answer says nothing; what was seen before holds as long as it does.
                    if let Ok(look) = lanes.run(shared.client(family).sight(&url)).await {
                        shared.known.sightings.note(&path, spot, look, clock::now());
                    }
                });
            }
        }
    }
}
