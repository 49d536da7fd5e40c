//! What isn't to be shared or can't be stored: the origin is asked for one request alone.

use super::*;

impl Cache {
    /// What isn't to be shared: the whole for this request alone, or its head, so that a part can be asked for.
    pub(super) async fn apart(
        self: &Arc<Self>,
        object: &Object,
        interest: Interest,
    ) -> Result<Content, FetchError> {
        match interest {
            Interest::Whole => self.pass(object).await,
            Interest::Parts => {
                let Head { meta, version, .. } = self.ask_head(object).await?;
                Ok(Content { meta, source: Source::Apart(version), tier: Tier::Pass, stale: false })
            }
        }
    }

    /// A part of what isn't to be shared, for this request alone: of the version that `head` named.
    pub(in crate::store) async fn pass_range(
        self: &Arc<Self>,
        object: &Object,
        head: Content,
        range: ByteRange,
    ) -> Result<Content, FetchError> {
        let permit = self.pass_permit().await?;
        let Content { meta, source: Source::Apart(version), .. } = head else {
            return Err(FetchError::NotStored);
        };
        let if_range = version.as_ref().map(Version::if_range);
        let response = self.ask(object, Ask::Range { range, if_range }).await?;
        let is_as_long = response.total.is_none() || response.total == meta.length;
        if !is_as_long || version.is_some_and(|version| !version.is_in(&response.headers)) {
            return Err(FetchError::Origin(Arc::new(OriginError::RangeIgnored)));
        }
        self.counters.passed.fetch_add(1, Ordering::Relaxed);
        // A part can't be checked against the digest of the whole.
        let body = PassBody::start(response.body, None, permit, &self.runtime);
        Ok(Content { meta, source: Source::Pass(body), tier: Tier::Pass, stale: false })
    }

    /// Asks for this request alone.
    async fn pass(self: &Arc<Self>, object: &Object) -> Result<Content, FetchError> {
        let permit = self.pass_permit().await?;
        let response = self.ask(object, Ask::Whole).await?;
        Ok(self.passing(object, response, permit))
    }

    pub(super) fn passing(
        &self,
        object: &Object,
        response: Response,
        permit: OwnedSemaphorePermit,
    ) -> Content {
        self.counters.passed.fetch_add(1, Ordering::Relaxed);
        let terms = passing_terms(&response.headers, clock::now());
        let meta = Arc::new(meta(object, &response.headers, response.length, terms));
        let body = PassBody::start(response.body, object.identity, permit, &self.runtime);
        Content { meta, source: Source::Pass(body), tier: Tier::Pass, stale: false }
    }

    /// Waits for others to end, within reason.
    pub(super) async fn pass_permit(&self) -> Result<OwnedSemaphorePermit, FetchError> {
        let (passes, patience) = (Arc::clone(&self.passes), self.settings.pass_patience);
        let waiting =
            self.runtime.spawn(async move { tokio::time::timeout(patience, passes.acquire_owned()).await });
        waiting.await.map_err(|_| FetchError::ShuttingDown)?.ok().and_then(Result::ok).ok_or(FetchError::Busy)
    }
}
