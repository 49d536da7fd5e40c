//! What isn't to be shared or can't be stored: the origin is asked for one request alone.

use super::*;

impl Cache {
    /// What isn't to be shared: the whole for this request alone, or its head, so that a part can be asked for.
    pub(super) async fn apart(
        self: &Arc<Self>,
        object: &Object,
        interest: Interest,
        demand: Demand,
    ) -> Result<Content, FetchError> {
        match interest {
            Interest::Whole => self.pass(object, demand).await,
            Interest::Parts => {
                let Head { meta, version, .. } = self.ask_head(object, demand).await?;
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
        demand: Demand,
    ) -> Result<Content, FetchError> {
        let place = self.pass_place(demand).await?;
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
        let body = PassBody::start(response.body, None, place, self.gate_for(demand), &self.runtime);
        Ok(Content { meta, source: Source::Pass(body), tier: Tier::Pass, stale: false })
    }

    /// Asks for this request alone.
    async fn pass(self: &Arc<Self>, object: &Object, demand: Demand) -> Result<Content, FetchError> {
        let place = self.pass_place(demand).await?;
        let response = self.ask(object, Ask::Whole).await?;
        Ok(self.passing(object, response, place, demand))
    }

    pub(super) fn passing(
        &self,
        object: &Object,
        response: Response,
        place: Place,
        demand: Demand,
    ) -> Content {
        self.counters.passed.fetch_add(1, Ordering::Relaxed);
        let terms = passing_terms(&response.headers, clock::now());
        let meta = Arc::new(meta(object, &response.headers, response.length, terms));
        let body =
            PassBody::start(response.body, object.identity, place, self.gate_for(demand), &self.runtime);
        Content { meta, source: Source::Pass(body), tier: Tier::Pass, stale: false }
    }

    /// Waits for others to end, within reason.
    pub(super) async fn pass_place(&self, demand: Demand) -> Result<Place, FetchError> {
        let patience = self.settings.pass_patience;
        self.passes.acquire_within(demand, patience, &self.runtime).await.ok_or(FetchError::Busy)
    }

    /// What a client's transfer has to pass; a push's passes nothing.
    fn gate_for(&self, demand: Demand) -> Option<Arc<Gate>> {
        (demand.class != Class::Push).then(|| Arc::clone(&self.gate))
    }
}
