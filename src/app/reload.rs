//! SIGHUP: another configuration for a node that runs.

use super::Running;
use crate::config::{Changes, Config};
use std::sync::Arc;

/// What errors say of a file that may not be opened.
const DENIED: &str = "Permission denied";

impl Running {
    /// Takes over what can be of `new`, and tells what needs a restart. No connection is dropped.
    pub fn reload(&mut self, new: &Config) {
        let changes = Changes::between(&self.config, new);
        let config = self.config.with_changes_of(new, &changes);
        if changes.egress {
            self.edge.egress.set(config.egress.clone());
            let capacity = config.egress.capacity.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
            let (shed_from, shed_all) = (config.egress.shed_from, config.egress.shed_all);
            tracing::info!(capacity, shed_from, shed_all, "[egress] is another now");
        }
        let repos: Vec<_> =
            changes.repos.iter().map(|index| (*index, Arc::new(config.repos[*index].clone()))).collect();
        for (_, repo) in &repos {
            tracing::info!(repo = repo.id, "its settings are others now");
        }
        self.background.block_on(self.pushes.set_repos(repos));
        for table in &changes.restart {
            tracing::warn!("{table} has changed, which needs a restart");
        }
        if changes.restart.is_empty() && !changes.egress && changes.repos.is_empty() {
            tracing::info!("the configuration is the same");
        }
        self.config = config;
        self.edge.metrics.config_reloads.with_label_values(&["applied"]).inc();
    }

    /// Another configuration was to be taken over, and has mistakes: the node goes on as it is.
    pub fn refuses(&self, mistakes: &[crate::config::Mistake]) {
        for mistake in mistakes {
            tracing::error!("{mistake}");
        }
        if self.is_confined && mistakes.iter().any(|mistake| mistake.text.contains(DENIED)) {
            tracing::error!(
                "the process keeps to what it was given when it started (node.confine): files elsewhere need a restart"
            );
        }
        tracing::error!(
            mistakes = mistakes.len(),
            "the configuration was not read again: the node goes on as it is"
        );
        self.edge.metrics.config_reloads.with_label_values(&["refused"]).inc();
    }
}
