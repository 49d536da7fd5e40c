//! What a HEAD says: of what is held, else the origin's answer to one, which is kept for a moment where it may be.

use super::*;
use bytes::Bytes;

/// What the origin says of an object.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) meta: Arc<Meta>,
    pub(super) version: Option<Version>,
    is_shared: bool,
}

impl Head {
    /// Whether it is of this version, and may be shared.
    pub(super) fn is_of(&self, version: &Version) -> bool {
        self.is_shared && self.version.as_ref() == Some(version)
    }

    /// Whether parts of it can be fetched, and are worth it.
    pub(super) fn takes_parts(&self, part_from: u64) -> bool {
        self.is_shared && self.version.is_some() && self.meta.length.is_some_and(|length| length >= part_from)
    }
}

impl Cache {
    /// What a HEAD says, as content without its bytes.
    pub(in crate::store) async fn head(
        self: &Arc<Self>,
        object: &Object,
        demand: Demand,
    ) -> Result<Content, FetchError> {
        // Of what is still to be verified its head is known.
        let held = match self.find(object).await {
            None => self.glance(object).await,
            found => found,
        };
        let held = match held {
            Some(content) if content.is_fresh(clock::now()) => return Ok(content.head_only()),
            stale => stale.map(Content::head_only),
        };
        if let Some(Head { meta, .. }) = self.known_head(object) {
            let (source, tier) = (Source::Memory(Bytes::new()), Tier::Memory);
            return Ok(Content { meta, source, tier, stale: false });
        }
        match self.ask_head(object, demand).await {
            Ok(Head { meta, .. }) => {
                let (source, tier) = (Source::Memory(Bytes::new()), Tier::Pass);
                Ok(Content { meta, source, tier, stale: false })
            }
            Err(refusal) => match held {
                Some(content) if !refusal.is_answer() && self.covers(&content.meta) => {
                    Ok(Content { stale: true, ..content })
                }
                _ => Err(refusal),
            },
        }
    }

    fn known_head(&self, object: &Object) -> Option<Head> {
        self.heads.get(object).filter(|head| clock::now() < head.meta.fresh_until)
    }

    /// What the origin says of an object, lately or now. `Busy` where others were before it for too long.
    pub(super) async fn ask_head(
        self: &Arc<Self>,
        object: &Object,
        demand: Demand,
    ) -> Result<Head, FetchError> {
        if let Some(head) = self.known_head(object) {
            return Ok(head);
        }
        // Few at a time, and none twice for a crowd: whoever waited finds the answer.
        let patience = self.settings.fill_patience;
        let acquiring = self.heads_out.acquire_within(demand, patience, &self.runtime);
        let _place = acquiring.await.ok_or(FetchError::Busy)?;
        if let Some(head) = self.known_head(object) {
            return Ok(head);
        }
        if let Some(refusal) = self.refusals.find(object) {
            return Err(refusal);
        }
        let (origin, named, asked) = (Arc::clone(&self.origin), object.clone(), clock::now());
        let answer = self
            .runtime
            .spawn(async move { origin.head(&named.path, named.query.as_deref(), named.size()).await })
            .await;
        let headers = answer.map_err(|_| FetchError::ShuttingDown)?.map_err(|e| self.refuse(object, e))?;
        let exchange = Exchange { asked, received: clock::now(), date: clock::date() };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if let Some(promised) = length.filter(|length| *length > MAX_OBJECT_BYTES) {
            return Err(self.refuse(object, OriginError::Absurd { promised }));
        }
        if let (Some(promised), Some(listed)) = (length, object.size())
            && promised != listed
        {
            return Err(self.refuse(object, OriginError::Length { promised, listed }));
        }
        let storage = freshness::judge(&headers, self.settings.revalidate, exchange);
        let terms = match storage {
            Storage::Store(terms) => terms,
            Storage::Pass => passing_terms(&headers, exchange.received),
        };
        let meta = Arc::new(meta(object, &headers, object.size().or(length), terms));
        let is_shared =
            object.identity.is_some() || matches!(storage, Storage::Store(_)) && meta.fields.fit();
        let head = Head { meta, version: Version::of(&headers), is_shared };
        if is_shared {
            self.heads.insert(object.clone(), head.clone());
        }
        Ok(head)
    }
}
