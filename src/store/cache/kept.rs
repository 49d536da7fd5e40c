//! Parts that a fill leaves behind, and how the next one goes on with them.

use super::course::Opening;
use super::*;

impl Cache {
    /// What an earlier fill of the same version left.
    pub(super) async fn kept_parts(self: &Arc<Self>, _object: &Object) -> Option<Opening> {
        None
    }

    /// Puts away what a fill has fetched.
    pub(super) async fn keep_parts(self: &Arc<Self>, _fill: &Fill, _draft: Draft) {}
}
